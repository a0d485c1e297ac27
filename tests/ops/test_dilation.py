import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.ops.dilation import dilated_conv2d


def test_every_position_of_the_kernel_meets_the_pixel_at_its_distance():
    image = np.zeros((1, 5, 7, 1), np.float32)
    image[0, 2, 3, 0] = 1.0
    kernel = np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3, 1, 1)
    got = dilated_conv2d(tf.constant(image), tf.constant(kernel), 2).numpy()[0, :, :, 0]
    wanted = np.zeros((5, 7))
    # A pixel meets the last position of the kernel first.
    wanted[::2, 1::2] = [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    np.testing.assert_array_equal(got, wanted)


def test_gradients_are_sums_that_a_hand_can_do():
    image = tf.reshape(tf.range(1.0, 5.0), [1, 1, 4, 1])
    kernel = tf.reshape([10.0, 100.0, 1000.0], [1, 3, 1, 1])
    upstream = tf.reshape([1.0, 2.0, 3.0, 4.0], [1, 1, 4, 1])
    with tf.GradientTape() as tape:
        tape.watch([image, kernel])
        outputs = dilated_conv2d(image, kernel, 2)
    # 1 * 100 + 3 * 1000, ..., 2 * 10 + 4 * 100
    assert outputs.numpy().ravel().tolist() == [3100, 4200, 310, 420]
    of_image, of_kernel = tape.gradient(outputs, [image, kernel], upstream)
    # 1 * 100 + 3 * 10, ..., 2 * 1000 + 4 * 100
    assert of_image.numpy().ravel().tolist() == [130, 240, 1300, 2400]
    # 3 * 1 + 4 * 2, 1 + 4 + 9 + 16, 1 * 3 + 2 * 4
    assert of_kernel.numpy().ravel().tolist() == [11, 30, 11]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("size", "side", "rate"), [((19, 19), 3, 6), ((5, 4), 3, 6), ((10, 12), 5, 2), ((6, 7), 3, 1)]
)
def test_it_is_tensorflows_convolution_within_rounding(dtype, size, side, rate):
    rng = np.random.default_rng(0)
    shapes = (2, *size, 4), (side, side, 4, 5), (2, *size, 5)
    images, kernel, upstream = (tf.cast(rng.normal(size=s), dtype) for s in shapes)

    @tf.function
    def both(convolve):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = convolve()
        return [outputs, *tape.gradient(outputs, [images, kernel], upstream)]

    got = both(lambda: dilated_conv2d(images, kernel, rate))
    wanted = both(lambda: tf.nn.convolution(images, kernel, padding="SAME", dilations=rate))
    # Sums of up to 722 products, and a bfloat16 has 8 bits.
    limits = {"rtol": 1e-5, "atol": 1e-4} if dtype == "float32" else {"rtol": 0.02, "atol": 0.3}
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(tf.cast(one, "float32"), tf.cast(other, "float32"), **limits)


def test_the_graph_has_no_detour_and_xla_compiles_the_gradients():
    images, kernel = tf.ones([1, 8, 8, 2]), tf.ones([3, 3, 2, 2])

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = dilated_conv2d(images, kernel, 3)
        return tape.gradient(outputs, [images, kernel])

    plain = tf.function(gradients).get_concrete_function()
    kinds = [one.type for one in plain.graph.get_operations()]
    assert kinds.count("Conv2D") == 2 and "SpaceToBatchND" not in kinds
    for one, other in zip(plain(), tf.function(gradients, jit_compile=True)(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
