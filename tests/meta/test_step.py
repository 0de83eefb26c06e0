import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from mln_lightning.meta import meta_step, stateless, virtual_update
from tests.meta.problems import problem, relative, smooth_network

KINDS = ("generator", "table", "weights")
BACKENDS = ("jvp", "autograd", "finite_difference")
TOLERANCE = {"jvp": 1e-12, "autograd": 1e-12, "finite_difference": 1e-7}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_differentiation_through_the_step(kind, backend):
    case = problem(kind)
    torch.manual_seed(1)
    expected = case.gradient()
    torch.manual_seed(1)
    step = case.step(backend)
    assert relative(step.grads, expected) < TOLERANCE[backend]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_numerical_differences_of_the_whole_procedure(kind):
    case = problem(kind)
    numerical = case.numerical_gradient(seed=1)
    for backend in BACKENDS:
        torch.manual_seed(1)
        assert relative(case.step(backend).grads, numerical) < 1e-7


def test_meta_loss_is_that_of_the_virtual_parameters():
    case = problem("table")
    torch.manual_seed(1)
    expected = case.meta_loss(0.7)
    torch.manual_seed(1)
    step = case.step("jvp")
    torch.testing.assert_close(step.meta_loss, expected.detach(), rtol=1e-14, atol=0)
    assert not step.meta_loss.requires_grad


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    size=st.integers(2, 9),
    seed=st.integers(0, 2**16),
    lr=st.floats(1e-6, 1e3),
)
def test_back_ends_agree_whatever_the_problem(kind, size, seed, lr):
    torch.manual_seed(seed)
    case = problem(kind, size=size, seed=seed)
    case.network.eval()  # batch statistics of two images are as good as singular
    exact = case.step("autograd", lr).grads
    scale = max(g.abs().max().item() for g in exact)
    for found, expected in zip(case.step("jvp", lr).grads, exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_touches_nothing_but_the_shared_buffers(backend):
    case = problem("generator")
    before = copy.deepcopy(case.network.state_dict())
    phi = [t.clone() for t in case.wrt]
    mine = copy.deepcopy(case.network)
    mine(case.images)
    case.step(backend)
    for name, value in case.network.state_dict().items():
        # exactly one update of the running statistics: the training forward's
        expected = mine.state_dict()[name] if "1." in name[:2] else before[name]
        assert torch.equal(value, expected), name
    assert all(p.grad is None for p in [*case.network.parameters(), *case.wrt])
    assert all(torch.equal(a, b) for a, b in zip(case.wrt, phi, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_copied_buffers_do_not_move(backend):
    case = problem("generator")
    before = copy.deepcopy(case.network.state_dict())
    case.step(backend, network=stateless(case.network))
    assert all(torch.equal(v, before[n]) for n, v in case.network.state_dict().items())


def test_shared_meta_buffers_see_one_more_forward():
    torch.manual_seed(0)
    network = smooth_network().train()
    twin = copy.deepcopy(network)
    case = problem("table", network)
    shared = stateless(network, buffers="share")
    meta_step(
        shared,
        dict(network.named_parameters()),
        case.images,
        case.head_loss,
        lambda p: cross_entropy(shared(p, case.meta_images), case.meta_labels),
        case.wrt,
        lr=0.0,
    )
    twin(case.images)
    twin(case.meta_images)  # a virtual step of length zero
    for (name, found), expected in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_state_is_that_after_one_training_and_one_meta_forward(backend):
    case = problem("weights")
    torch.manual_seed(3)
    case.network(case.images)
    case.network(case.meta_images)
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    case.step(backend)
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_virtual_step_of_length_zero_has_no_meta_gradient(kind, backend):
    assert all(g.eq(0).all() for g in problem(kind).step(backend, lr=0.0).grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_carry_the_graph_of_the_training_forward(backend):
    case = problem("table")
    twin = copy.deepcopy(case.network)
    torch.manual_seed(5)
    expected = twin(case.images)
    expected.square().sum().backward()
    torch.manual_seed(5)
    step = case.step(backend)
    step.logits.square().sum().backward()
    assert torch.equal(step.logits, expected)
    for p, q in zip(case.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-14, atol=1e-16)


def test_frozen_parameters_take_no_virtual_step():
    case = problem("table")
    for p in case.network[0].parameters():
        p.requires_grad_(False)
    moving = [p for p in case.network.parameters() if p.requires_grad]
    torch.manual_seed(1)
    logits = case._logits(dict(case.network.named_parameters()), case.images)
    grads = torch.autograd.grad(case.head_loss(logits), moving, create_graph=True)
    moved = dict(zip(map(id, moving), grads, strict=True))
    virtual = {n: p - moved.get(id(p), 0) for n, p in case.network.named_parameters()}
    loss = cross_entropy(case._logits(virtual, case.meta_images), case.meta_labels)
    expected = torch.autograd.grad(loss, case.wrt)
    for backend in BACKENDS:
        torch.manual_seed(1)
        assert relative(case.step(backend, lr=1.0).grads, expected) < TOLERANCE[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_outside_the_forward_do_no_harm(backend):
    plain, more = problem("table"), problem("table")
    more.network.load_state_dict(plain.network.state_dict())
    more.network.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    torch.manual_seed(1)
    expected = plain.step(backend).grads
    torch.manual_seed(1)
    assert relative(more.step(backend).grads, expected) < 1e-7


def test_scale_cancels():
    case = problem("generator")
    torch.manual_seed(1)
    expected = case.step("jvp").grads
    torch.manual_seed(1)
    assert relative(case.step("jvp", scale=2.0**10).grads, expected) < 1e-13


@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_with_parts_of_a_batch_equal_one_with_all(backend):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    seen = torch.randn(8, 5, dtype=torch.float64)
    phi = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    images = torch.randn(8, 2, 4, 4, dtype=torch.float64)
    meta_images, meta_labels = torch.randn_like(images), torch.randint(3, (8,))

    def part(rows: slice, reduce=None):
        function = stateless(network)
        share = len(images[rows]) / len(images)
        return meta_step(
            function,
            dict(network.named_parameters()),
            images[rows],
            lambda o: share * cross_entropy(o, (seen[rows] @ phi.T).softmax(dim=1)),
            lambda p: share * cross_entropy(function(p, meta_images[rows]), meta_labels[rows]),
            (phi,),
            lr=0.5,
            backend=backend,
            reduce=reduce,
        ).grads

    # Processes in turn: in round k the first k sums are known, and each adds its own part.
    sums: list[list[torch.Tensor]] = []
    for k in range(3):
        parts = []
        for rows in (slice(0, 3), slice(3, 8)):
            calls: list[list[torch.Tensor]] = []

            def reduce(tensors, calls=calls):
                calls.append(list(tensors))
                return sums[len(calls) - 1] if len(calls) <= len(sums) else tensors

            grads = part(rows, reduce)
            assert len(calls) == 2  # the virtual gradient and v
            parts.append([*calls, grads][k])
        sums.append([a + b for a, b in zip(*parts, strict=True)])
    assert relative(sums[2], part(slice(0, 8))) < TOLERANCE[backend]


def test_virtual_update_is_a_plain_gradient_step():
    params = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    moved = virtual_update(params, {"a": torch.tensor([10.0, 0.0])}, 0.5)
    assert torch.equal(moved["a"], torch.tensor([-4.0, 2.0]))
    assert torch.equal(moved["b"], params["b"])


def test_bad_arguments_are_refused():
    case = problem("table")
    with pytest.raises(ValueError, match="backend must be one of jvp, autograd"):
        case.step("forward")
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        case.step("jvp", scale=0)
    with pytest.raises(ValueError, match="buffers must be 'copy' or 'share', got 'keep'"):
        stateless(case.network, buffers="keep")
    case.head_loss = lambda logits: logits.square().mean()
    with pytest.raises(ValueError, match="does not depend on wrt"):
        case.step("jvp")
    case.network.requires_grad_(False)
    with pytest.raises(ValueError, match="No tensor in params requires grad"):
        case.step("jvp")


def test_a_network_with_several_outputs_is_refused():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    with pytest.raises(ValueError, match="Pair returned a tuple"):
        stateless(Pair())({}, torch.zeros(1))


def tied_layers():
    layer = nn.Linear(32, 32)
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(32, 3))


def tied_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
    net.append(nn.Tanh()).append(nn.Linear(32, 3))
    net[3].weight = net[1].weight
    return net


@pytest.mark.parametrize("make", [tied_layers, tied_weights])
def test_shared_parameters_move_together_and_stay_in_place(make):
    torch.manual_seed(0)
    case = problem("generator", make().double())
    before = list(case.network.parameters())
    values = [p.clone() for p in before]
    found = {backend: case.step(backend).grads for backend in BACKENDS}
    assert [id(p) for p in case.network.parameters()] == [id(p) for p in before]
    assert all(torch.equal(p, v) for p, v in zip(before, values, strict=True))

    # The same network written out, without torch's functional call.
    twin = make().double()
    twin.load_state_dict(case.network.state_dict())
    weights = dict(twin.named_parameters())

    def run(w, images):
        inner = (images.flatten(1) @ w["1.weight"].T + w["1.bias"]).tanh()
        bias = w.get("3.bias", w["1.bias"])
        return (inner @ w["1.weight"].T + bias).tanh() @ w["5.weight"].T + w["5.bias"]

    loss = case.head_loss(run(weights, case.images))
    grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    virtual = {n: w - 0.7 * g for (n, w), g in zip(weights.items(), grads, strict=True)}
    meta = cross_entropy(run(virtual, case.meta_images), case.meta_labels)
    expected = torch.autograd.grad(meta, case.wrt)
    for backend in BACKENDS:
        assert relative(found[backend], expected) < TOLERANCE[backend]
