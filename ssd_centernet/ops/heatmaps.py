"""Centre heatmaps: from boxes to targets, and from maps back to boxes.

Boxes, offsets and sizes are in output cells here: one cell is one pixel of the heatmap.
"""

from __future__ import annotations

import tensorflow as tf

# Two neighbours whose scores differ by less than this are one plateau, and both are peaks.
# Source: docs/reference/centernet.md, section 4, step 2
PLATEAU = 1e-6


def gaussian_radius(heights: tf.Tensor, widths: tf.Tensor, min_overlap: float = 0.7) -> tf.Tensor:
    """Compute how far a box can move and still overlap its object enough.

    Three placements of the moved box give three distances. This is the one for a box that contains
    the object, with the root divided by 2 instead of 2a, as in the reference; of the reference's
    three distances it is the smallest for every box.

    Args:
        heights: float32 [...], in cells, at least 0.
        widths: float32 [...], in cells, at least 0.
        min_overlap: IoU that must remain, in (0, 1).

    Returns:
        float32 [...], in cells.

    Source:
        docs/reference/centernet.md, section 2
        CornerNet: Detecting Objects as Paired Keypoints (arXiv:1808.01244)
    """
    # In the reference's order of operations, as the sigma takes the whole part of the result.
    b = 2.0 * min_overlap * (heights + widths)
    c = (min_overlap - 1.0) * widths * heights
    return (-b + tf.sqrt(b * b - 4.0 * (4.0 * min_overlap) * c)) / 2.0


def gaussian_sigma(heights: tf.Tensor, widths: tf.Tensor, min_overlap: float = 0.7) -> tf.Tensor:
    """Compute the deviation of a box's peak: a sixth of the diameter of its radius.

    Args:
        heights: float32 [...], in cells, at least 0.
        widths: float32 [...], in cells, at least 0.
        min_overlap: see `gaussian_radius`.

    Returns:
        float32 [...], in cells, at least 1/6.

    Source: docs/reference/centernet.md, section 2
    """
    radius = tf.floor(gaussian_radius(heights, widths, min_overlap))
    return (2.0 * tf.maximum(radius, 0.0) + 1.0) / 6.0


def center_targets(
    boxes: tf.Tensor, output_size: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute the values that the centre cell of each box should predict.

    Args:
        boxes: float32 [..., M, 4], yxyx, in cells.
        output_size: (h, w) of the heatmap.

    Returns:
        `cells` int32 [..., M, 2], (y, x) of the cell with the box's centre, inside the map (a box
        without extent on the far border lies in the last cell); `offsets` float32 [..., M, 2], from
        that cell's corner to the centre, (y, x) in [0, 1]; `sizes` float32 [..., M, 2], (h, w).

    Source: docs/reference/centernet.md, section 2
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centers = (low + high) / 2.0
    last = tf.constant(output_size, tf.float32) - 1.0
    # A centre on the far border has its floor outside the map.
    cells = tf.clip_by_value(tf.floor(centers), 0.0, last)
    return tf.cast(cells, tf.int32), centers - cells, high - low


def gaussian_heatmap(
    cells: tf.Tensor,
    sigmas: tf.Tensor,
    classes: tf.Tensor,
    weights: tf.Tensor,
    *,
    num_classes: int,
    output_size: tuple[int, int],
) -> tf.Tensor:
    """Draw a peak for every box; merge the peaks of a class by their maximum.

    A peak covers the whole map and is exactly its weight at the centre. It is a product of two
    profiles, so only two operations on the whole batch are dense: one product and one segment
    maximum.

    Args:
        cells: int32 [B, M, 2], (y, x).
        sigmas: float32 [B, M], in cells; or [B, M, 2], (vertical, horizontal).
        classes: int32 or float32 [B, M], 0..C-1, whole numbers.
        weights: float32 [B, M], height of the peaks; rows of weight 0 are left out.
        num_classes: C.
        output_size: (h, w).

    Returns:
        float32 [B, h, w, C] in [0, 1].

    Source: docs/reference/centernet.md, section 2
    """
    height, width = output_size
    batch, rows = tf.shape(sigmas)[0], tf.shape(sigmas)[1]
    # [B, M, h] and [B, M, w]. From the cell, not from the centre in it: the peak is then exp(0),
    # exactly its weight, and by a target of exactly 1 the loss knows a positive.
    # All whole numbers as float32: on GPUs TensorFlow computes with int32 on the host.
    cells, classes = tf.cast(cells, tf.float32), tf.cast(classes, tf.float32)
    to_row = tf.range(height, dtype=tf.float32) - cells[..., :1]
    to_column = tf.range(width, dtype=tf.float32) - cells[..., 1:]
    if sigmas.shape.rank == 2:
        sigmas = tf.stack([sigmas, sigmas], axis=-1)
    twice_variance = 2.0 * sigmas**2
    vertical = tf.exp(-(to_row**2) / twice_variance[..., :1]) * weights[..., tf.newaxis]
    horizontal = tf.exp(-(to_column**2) / twice_variance[..., 1:])
    # [B, M, h, w], the one large tensor here.
    peaks = vertical[..., :, tf.newaxis] * horizontal[..., tf.newaxis, :]
    # Segments of negative number are left out.
    images = tf.cast(tf.range(batch)[:, tf.newaxis], tf.float32)
    segments = tf.where(weights > 0.0, classes + num_classes * images, -1.0)
    # One segment for each image and class.
    merged = tf.math.unsorted_segment_max(
        tf.reshape(peaks, [batch * rows, height, width]),
        tf.cast(tf.reshape(segments, [-1]), tf.int32),
        batch * num_classes,
    )
    # A segment without a box comes out as the lowest number there is.
    merged = tf.reshape(tf.maximum(merged, 0.0), [batch, num_classes, height, width])
    return tf.transpose(merged, [0, 2, 3, 1])


def elliptic_radii(boxes: tf.Tensor, share: float = 0.54) -> tf.Tensor:
    """Compute how many cells a peak reaches from its centre, for each axis by itself.

    Args:
        boxes: float32 [..., M, 4], yxyx, in cells.
        share: of the box's height and width that the peak covers.

    Returns:
        float32 [..., M, 2], (vertical, horizontal), whole numbers of cells, at least 0.

    Source: Training-Time-Friendly Network for Real-Time Object Detection (arXiv:1909.00700)
    """
    sizes = boxes[..., 2:] - boxes[..., :2]
    return tf.maximum(tf.floor(0.5 * share * sizes), 0.0)


def side_targets(
    boxes: tf.Tensor,
    weights: tf.Tensor,
    *,
    cell_area: float,
    output_size: tuple[int, int],
    share: float = 0.54,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Give each cell near a centre the box of its object, and a weight that falls with distance.

    The cells of an object are those within `elliptic_radii` of its centre's cell. Where several
    objects meet, the smallest has the cell, the last of equal ones. The weights of an object's
    cells, those that it loses among them, sum to log(1 + its area in pixels): large objects have
    more cells, but each of them counts less.

    Args:
        boxes: float32 [B, M, 4], yxyx, in cells.
        weights: float32 [B, M], factors of the objects' weights; rows of weight 0 are left out.
        cell_area: pixels of the network's input that a cell covers.
        output_size: (h, w) of the maps.
        share: see `elliptic_radii`.

    Returns:
        `(cell_boxes, cell_weights)`: float32 [B, h, w, 4], the box of each cell, in cells, zeros
        without one; float32 [B, h, w], 0 without one.

    Source: Training-Time-Friendly Network for Real-Time Object Detection (arXiv:1909.00700)
    """
    cells, _, sizes = center_targets(boxes, output_size)
    cells = tf.cast(cells, tf.float32)
    radii = elliptic_radii(boxes, share)
    areas = sizes[..., 0] * sizes[..., 1]
    profiles = []
    for axis, length in enumerate(output_size):
        away = tf.range(length, dtype=tf.float32) - cells[..., axis, tf.newaxis]
        radius = radii[..., axis, tf.newaxis]
        sigma = (2.0 * radius + 1.0) / 6.0
        peak = tf.exp(-(away**2) / (2.0 * sigma**2))
        profiles.append(tf.where(tf.abs(away) <= radius, peak, 0.0))
    vertical, horizontal = profiles
    # An object's own cell is always on the map, so that a sum is at least 1.
    totals = tf.reduce_sum(vertical, axis=-1) * tf.reduce_sum(horizontal, axis=-1)
    scale = weights * tf.math.log1p(areas * cell_area) / totals
    # [B, M, h, w], the one large tensor here.
    taken = (vertical[..., :, tf.newaxis] * scale[..., tf.newaxis, tf.newaxis]) * horizontal[
        ..., tf.newaxis, :
    ]
    # The largest comes first, so that the last one of a cell is the smallest: equal ones by row.
    order = tf.argsort(-areas, axis=-1, stable=True)
    taken, boxes = (tf.gather(value, order, batch_dims=1) for value in (taken, boxes))
    rows = tf.range(1, tf.shape(boxes)[1] + 1)[:, tf.newaxis, tf.newaxis]
    # [B, h, w]; 0 is no object, which is the maximum where there is no row at all too.
    last = tf.maximum(tf.reduce_max(tf.where(taken > 0.0, rows, 0), axis=1), 0)
    own = tf.where(rows == last[:, tf.newaxis], taken, 0.0)
    boxes = tf.pad(boxes, [[0, 0], [1, 0], [0, 0]])
    return tf.gather(boxes, last, batch_dims=1), tf.reduce_sum(own, axis=1)


def boxes_from_sides(sides: tf.Tensor, cells: tf.Tensor | None = None) -> tf.Tensor:
    """Turn distances from the middles of cells to the four sides into boxes.

    Args:
        sides: float32 [..., h, w, 4], (top, left, bottom, right), in cells, at least 0; or, with
            `cells`, [..., 4].
        cells: int32 [..., 2], (y, x), one for each row of `sides`; None means all of a map.

    Returns:
        float32 of the shape of `sides`: yxyx, in cells, not clipped.
    """
    if cells is None:
        rows, columns = sides.shape[-3], sides.shape[-2]
        cells = tf.stack(tf.meshgrid(tf.range(rows), tf.range(columns), indexing="ij"), axis=-1)
    middles = tf.cast(cells, tf.float32) + 0.5
    return tf.concat([middles - sides[..., :2], middles + sides[..., 2:]], axis=-1)


def cells_inside(extent: tf.Tensor, image_size: tuple[int, int], output_size: tuple[int, int]):
    """Mark the cells that see a part of the image, not only padding.

    Args:
        extent: float32 [..., 2], share (height, width) of the network's input that the image
            covers.
        image_size: (height, width) of the network's input in pixels.
        output_size: (h, w) of the heatmap.

    Returns:
        bool [..., h, w].

    Source: docs/reference/centernet.md, section 3
    """
    # Whole pixels, so that no rounding of the shares can add a row of cells.
    pixels = tf.round(extent * tf.constant(image_size, tf.float32))
    stride = tf.constant([i / o for i, o in zip(image_size, output_size, strict=True)], tf.float32)
    limits = tf.math.ceil(pixels / stride)
    rows = tf.range(output_size[0], dtype=tf.float32) < limits[..., :1]
    columns = tf.range(output_size[1], dtype=tf.float32) < limits[..., 1:]
    return rows[..., :, tf.newaxis] & columns[..., tf.newaxis, :]


def counted_cells(
    heatmap: tf.Tensor,
    crowds: tuple[tf.Tensor, tf.Tensor] | None,
    extent: tf.Tensor | None,
    image_size: tuple[int, int],
) -> tf.Tensor:
    """Give weight 0 to the cells of which the centres' loss shall learn nothing.

    Args:
        heatmap: float32 [B, h, w, C], exactly 1 at centres.
        crowds: regions to ignore, float32 [B, M, 4], yxyx, in cells, and bool [B, M], which of them
            count; None for none.
        extent: as in `cells_inside`; None if there is no padding.
        image_size: (height, width) of the network's input in pixels.

    Returns:
        float32 [B, h, w], 1 or 0. A centre's own cell counts even inside a crowd.
    """
    output_size = tuple(heatmap.shape[1:3])
    used = tf.ones(tf.shape(heatmap)[:-1], tf.bool)
    if crowds is not None:
        inside = cells_in_regions(*crowds, output_size)
        used = ~inside | (tf.reduce_max(heatmap, axis=-1) == 1.0)
    if extent is not None:
        used &= cells_inside(extent, image_size, output_size)
    return tf.cast(used, tf.float32)


def cells_in_regions(
    regions: tf.Tensor, valid: tf.Tensor, output_size: tuple[int, int]
) -> tf.Tensor:
    """Mark the cells whose middle lies in any of the regions.

    Args:
        regions: float32 [..., M, 4], yxyx, in cells.
        valid: bool [..., M], True for regions that count.
        output_size: (h, w) of the heatmap.

    Returns:
        bool [..., h, w].
    """
    height, width = output_size
    ymin, xmin, ymax, xmax = tf.split(regions, 4, axis=-1)
    y, x = tf.range(height, dtype=tf.float32) + 0.5, tf.range(width, dtype=tf.float32) + 0.5
    rows = tf.cast((y >= ymin) & (y < ymax) & valid[..., tf.newaxis], tf.float32)
    columns = tf.cast((x >= xmin) & (x < xmax), tf.float32)
    # Number of regions of each cell.
    return tf.matmul(rows, columns, transpose_a=True) > 0.5


def gather_cells(maps: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Gather values at cells.

    Args:
        maps: float32 [B, h, w, K].
        cells: int32 [B, M, 2], (y, x), inside the map.

    Returns:
        float32 [B, M, K].
    """
    _, height, width, depth = maps.shape
    # Cells as one axis, so that one number gathers all K values of one.
    flat = tf.reshape(maps, [-1, height * width, depth])
    # As float32, in which these are exact: on GPUs TensorFlow computes with int32 on the host.
    places = tf.cast(cells, tf.float32)
    # The gradient computes with them too, in their own type.
    places = tf.cast(places[..., 0] * width + places[..., 1], tf.int64)
    return tf.gather(flat, places, batch_dims=1)


def keep_peaks(scores: tf.Tensor, kernel_size: int = 3) -> tf.Tensor:
    """Set scores to 0 unless they are the largest in their neighbourhood, class by class.

    Args:
        scores: float32 [B, h, w, C] in [0, 1].
        kernel_size: side of the neighbourhood in cells, odd.

    Returns:
        float32 [B, h, w, C]. All cells of a plateau are kept.

    Source: docs/reference/centernet.md, section 4, step 2
    """
    # What SAME pads never is the largest, so that cells at the border are peaks among their real
    # neighbours.
    largest = tf.nn.max_pool2d(scores, kernel_size, 1, "SAME")
    return tf.where(tf.abs(scores - largest) < PLATEAU, scores, 0.0)


def top_peaks(scores: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find the largest scores of each image over all cells and classes.

    Args:
        scores: float32 [B, h, w, C].
        count: number of scores, at most h * w * C.

    Returns:
        `scores` float32 [B, count], descending; `cells` int32 [B, count, 2], (y, x); `classes`
        int32 [B, count]. Ties go to the upper row, then the left column, then the lower class.

    Source: docs/reference/centernet.md, section 4, steps 3 and 4
    """
    _, height, width, num_classes = scores.shape
    # The class varies fastest: the order in which the original resolves ties.
    flat = tf.reshape(scores, [-1, height * width * num_classes])
    best, index = tf.math.top_k(flat, count)
    place = index // num_classes
    return best, tf.stack([place // width, place % width], axis=-1), index % num_classes


def decode_boxes(
    cells: tf.Tensor, offsets: tf.Tensor, sizes: tf.Tensor, output_size: tuple[int, int]
) -> tf.Tensor:
    """Turn predictions at cells into boxes; the inverse of `center_targets`.

    Args:
        cells: int32 [..., 2], (y, x).
        offsets: float32 [..., 2], (y, x), in cells.
        sizes: float32 [..., 2], (h, w), in cells; negative ones count as 0.
        output_size: (h, w) of the heatmap.

    Returns:
        float32 [..., 4], yxyx, in cells, clipped to the map.

    Source: docs/reference/centernet.md, section 4, step 5
    """
    centers = tf.cast(cells, tf.float32) + offsets
    half = tf.maximum(sizes, 0.0) / 2.0
    limit = tf.constant(output_size, tf.float32)
    corners = [tf.clip_by_value(c, 0.0, limit) for c in (centers - half, centers + half)]
    return tf.concat(corners, axis=-1)
