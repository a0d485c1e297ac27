"""Momentum and weight decay by hand-computed numbers."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.models.weight_decay import add_weight_decay, decay_mask
from ssd_centernet.recipe import Recipe
from ssd_centernet.training import optimizers
from ssd_centernet.training.length import RunLength
from ssd_centernet.training.optimizers import LAMB, Adam, AdamW, Momentum


def test_the_rate_is_outside_the_accumulator():
    variable = tf.Variable([1.0])
    optimizer = Momentum(0.9)
    optimizer.build([variable])
    for rate, gradient in ((0.1, 2.0), (0.01, 1.0)):
        optimizer.learning_rate.assign(rate)
        optimizer.apply_gradients([(tf.constant([gradient]), variable)])
    # m: 2.0, then 0.9 * 2 + 1 = 2.8; v: 1 - 0.1 * 2 - 0.01 * 2.8. Keras' SGD would give 0.61.
    np.testing.assert_allclose(variable.numpy(), [1 - 0.2 - 0.028], rtol=1e-6)
    np.testing.assert_allclose(optimizer.accumulators[0].numpy(), [2.8], rtol=1e-6)


def test_sparse_gradients_are_applied_as_dense_ones():
    variable = tf.Variable([[1.0], [1.0]])
    optimizer = Momentum(0.5, learning_rate=1.0)
    optimizer.build([variable])
    gradient = tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([1]), tf.constant([2, 1]))
    optimizer.apply_gradients([(gradient, variable)])
    optimizer.apply_gradients([(tf.zeros([2, 1]), variable)])
    np.testing.assert_allclose(variable.numpy(), [[1.0], [1.0 - 3.0 - 1.5]])


def test_the_optimizer_survives_its_config():
    copy = Momentum.from_config(Momentum(0.7, learning_rate=0.3).get_config())
    assert copy.momentum == 0.7
    assert float(copy.learning_rate) == pytest.approx(0.3)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(copy))
    assert isinstance(loaded, Momentum)


def test_decay_leaves_out_what_is_named():
    kernel = tf.Variable([2.0], name="conv/kernel")
    gamma = tf.Variable([2.0], name="conv_norm/gamma")
    mask = decay_mask([kernel, gamma], ("_norm/",))
    assert mask == [True, False]
    gradients = [tf.constant([1.0]), tf.constant([1.0])]
    decayed = add_weight_decay(gradients, [kernel, gamma], mask, 0.1)
    np.testing.assert_allclose([g.numpy()[0] for g in decayed], [1.2, 1.0], rtol=1e-6)
    plain = add_weight_decay(gradients, [kernel, gamma], mask, 0.0)
    assert plain[0] is gradients[0]


# The kernel takes 1 - 0.999 in float32, which is off by 1.3e-5; Keras takes it in double precision.
@pytest.mark.parametrize(
    ("make", "rtol"),
    [(lambda: Momentum(0.9, learning_rate=0.03), 1e-6), (lambda: Adam(0.03), 2e-5)],
    ids=["momentum", "adam"],
)
def test_the_fused_update_equals_the_plain_one(monkeypatch, make, rtol):
    values = []
    for fused in (True, False):
        monkeypatch.setattr(optimizers, "_has_fused_kernels", lambda _, fused=fused: fused)
        variable = tf.Variable([0.3, -2.0, 5.0])
        optimizer = make()
        optimizer.build([variable])
        for step in range(4):
            optimizer.apply_gradients([(tf.constant([0.1, -0.7, 2.0]) * (step + 1), variable)])
        values.append([one.numpy() for one in (variable, *optimizer.variables)])
    for one, other in zip(*values, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol)


@pytest.mark.parametrize("make", [Momentum, Adam])
def test_an_update_is_one_kernel_a_variable(make):
    variables = [tf.Variable([1.0]), tf.Variable([2.0])]
    optimizer = make()
    optimizer.build(variables)

    @tf.function
    def update():
        optimizer.apply_gradients([(tf.constant([1.0]), one) for one in variables])

    operations = update.get_concrete_function().graph.get_operations()
    kinds = [one.type for one in operations if "Apply" in one.type or "Assign" in one.type]
    assert kinds.count(f"ResourceApply{make.__name__}") == 2
    assert len(kinds) == 3  # And the count of updates.


def named(values, name):
    return tf.Variable(np.array(values, np.float32), name=name)


def apply(optimizer, variables, gradients):
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply_gradients(
            [(tf.constant(one, tf.float32), v) for one, v in zip(step, variables, strict=True)]
        )


def adam_by_hand(values, gradients, *, rate, decay=0.0, epsilon=1e-7, scaled=False):
    """Apply Adam in double precision, with a decay beside it, or as LAMB does."""
    v, m, s = (np.array(x, float) for x in (values, np.zeros(len(values)), np.zeros(len(values))))
    for step, gradient in enumerate(gradients, start=1):
        gradient = np.array(gradient, float)
        m, s = 0.9 * m + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
        update = m / (1 - 0.9**step) / (np.sqrt(s / (1 - 0.999**step)) + epsilon)
        if scaled:
            update = update + decay * v
            update = update * np.linalg.norm(v) / np.linalg.norm(update)
        else:
            v = v - rate * decay * v
        v = v - rate * update
    return v


GRADIENTS = [([0.5, -1.0], [1.0, 2.0]), ([-2.0, 0.1], [0.3, -0.2]), ([1.0, 1.0], [0.0, 1.0])]


def test_adamw_shortens_weights_beside_adam_and_leaves_norms_and_biases():
    for name in ("conv/bias", "conv_norm/gamma"):
        kernel, other = named([1.0, -2.0], "conv/kernel"), named([1.0, -2.0], name)
        apply(AdamW(0.1, weight_decay=0.3), [kernel, other], GRADIENTS)
        first, second = zip(*GRADIENTS, strict=True)
        want = adam_by_hand([1.0, -2.0], first, rate=0.1, decay=0.3)
        np.testing.assert_allclose(kernel, want, rtol=1e-4)
        np.testing.assert_allclose(other, adam_by_hand([1.0, -2.0], second, rate=0.1), rtol=1e-4)


def test_lamb_moves_each_variable_in_proportion_to_its_length():
    kernel, bias = named([1.0, -2.0], "conv/kernel"), named([1.0, -2.0], "conv/bias")
    apply(LAMB(0.1, decay=0.3), [kernel, bias], GRADIENTS)
    first, second = zip(*GRADIENTS, strict=True)
    want = adam_by_hand([1.0, -2.0], first, rate=0.1, decay=0.3, epsilon=1e-6, scaled=True)
    np.testing.assert_allclose(kernel, want, rtol=1e-4)
    want = adam_by_hand([1.0, -2.0], second, rate=0.1, epsilon=1e-6)
    np.testing.assert_allclose(bias, want, rtol=1e-4)


def test_lamb_moves_weights_of_zero_and_stays_where_nothing_pulls():
    zero, still = named([0.0, 0.0], "a/kernel"), named([3.0, 4.0], "b/kernel")
    apply(LAMB(0.1, decay=0.0), [zero, still], [([1.0, -1.0], [0.0, 0.0])])
    np.testing.assert_allclose(zero, [-0.1, 0.1], rtol=1e-4)
    np.testing.assert_allclose(still, [3.0, 4.0])


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(0.2, weight_decay=0.5, decay_exclude=("stem",), beta_2=0.9),
        LAMB(0.2, decay=0.5, decay_exclude=("stem",), beta_2=0.9),
    ],
)
def test_decaying_optimizers_survive_their_config(optimizer):
    written = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(written)
    assert type(copy) is type(optimizer) and copy.get_config() == optimizer.get_config()
    assert tuple(copy.decay_exclude) == ("stem",)
    weights = []
    for one in (optimizer, copy):
        variables = [named([1.0, -2.0], "stem/kernel"), named([1.0, -2.0], "conv/kernel")]
        apply(one, variables, GRADIENTS)
        weights.append([v.numpy() for v in variables])
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_a_recipe_that_decays_twice_is_refused(name):
    try:
        config.parse([], [f"train.optimizer = @{name}", "train.weight_decay = 0.0001"])
        with pytest.raises(ValueError, match=f"train.optimizer is {name}, which decays the weigh"):
            Recipe()
        config.clear()
        config.parse([], [f"train.optimizer = @{name}", f"{name}.decay_exclude = ('stem',)"])
        assert Recipe().optimizer().decay_exclude == ("stem",)
    finally:
        config.clear()


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_what_variables_share_is_in_a_graph_once(optimizer):
    made = optimizer(0.01)
    variables = [tf.Variable([1.0, 2.0], name=f"kernel{n}") for n in range(4)]
    made.build(variables)

    @tf.function(autograph=False)
    def update():
        made.apply_gradients([(tf.ones([2]), variable) for variable in variables])

    kinds = [op.type for op in update.get_concrete_function().graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 4
    assert kinds.count("Pow") == 2
    # Each update has the powers of its own step.
    update()
    made.apply_gradients([(tf.ones([2]), variable) for variable in variables])
    np.testing.assert_allclose(
        [variable.numpy() for variable in variables], [[0.98, 1.98]] * 4, atol=5e-4
    )


def test_a_recipe_has_no_update_compiled_for_each_variable():
    """As Keras does by itself where there is a GPU."""
    config.parse(["ssd_demo"])
    optimizer = Adam()
    optimizer.jit_compile = True
    recipe = Recipe().replace(optimizer=lambda: optimizer)
    length = RunLength(steps_per_epoch=3, total_steps=3, global_batch_size=4)
    trainer = recipe.trainer(recipe.detector(num_classes=2), length)
    config.clear()
    assert trainer.optimizer is optimizer and not optimizer.jit_compile
