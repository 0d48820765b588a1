import pytest
import torch

from mho.data import Batches, Dataset, normalise
from mho.data.augment import flip, shift
from mho.errors import DataError, InputError

COUNT = 53
X = torch.randint(1, 256, (COUNT, 2, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(COUNT)
MEAN, STD = (0.5, 0.25), (0.2, 0.1)


def batches(batch_size=8, **settings):
    return Batches(X, Y, batch_size, mean=MEAN, std=STD, **settings)


def everything(iterable):
    xs, ys = zip(*iterable, strict=True)
    return torch.cat(xs), torch.cat(ys)


def dataset(labels=None, classes=5):
    y = torch.arange(COUNT) % classes if labels is None else labels
    return Dataset("toy", X, y, X[:9], y[:9], MEAN, STD, tuple("abcdefghij"[:classes]))


def test_plain_batches_are_the_normalised_set_in_order():
    data = batches()
    x, y = everything(data)
    expected = (X.double() / 255 - torch.tensor(MEAN).double().view(2, 1, 1)) / torch.tensor(STD).double().view(2, 1, 1)
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), expected, atol=2e-6)
    assert torch.equal(y, Y)
    assert torch.equal(normalise(X, MEAN, STD), x)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [8] * 6 + [5]), (True, [8] * 6)])
def test_length_and_last_batch(drop_last, sizes):
    data = batches(drop_last=drop_last)
    assert [len(y) for _, y in data] == sizes
    assert len(data) == len(sizes)


def test_labels_stay_with_their_images():
    x, y = everything(batches(shuffle=True))
    assert torch.equal(x, normalise(X, MEAN, STD)[y])
    assert torch.equal(y.sort().values, Y)
    assert not torch.equal(y, Y)


def test_order_follows_seed_and_epoch_alone():
    data = batches(shuffle=True, seed=3, augment=("shift", "flip"))
    first, second = everything(data), everything(data)
    assert not torch.equal(first[1], second[1])
    data.set_epoch(0)
    again = everything(data)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    other_size = everything(batches(batch_size=11, shuffle=True, seed=3, augment=("shift", "flip")))
    assert torch.equal(first[0], other_size[0])
    assert not torch.equal(first[1], everything(batches(shuffle=True, seed=4))[1])


def test_a_loop_left_early_moves_the_epoch_and_another_may_go_on_inside():
    data = batches(shuffle=True, augment="shift")
    next(iter(data))
    assert data.epoch == 1
    whole, rest = list(data.of_epoch(0)), list(data.of_epoch(0, start=4))
    assert data.epoch == 1
    assert len(rest) == len(whole) - 4
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[4:], rest, strict=True))


def test_shift_against_a_loop():
    moves = torch.randint(5, (2, COUNT), generator=torch.Generator().manual_seed(1))
    moved = shift(X, moves, 2)
    for image, result, (down, right) in zip(X, moved, (moves - 2).T.tolist(), strict=True):
        expected = torch.zeros_like(image)
        for row in range(6):
            for column in range(5):
                if 0 <= row - down < 6 and 0 <= column - right < 5:
                    expected[:, row, column] = image[:, row - down, column - right]
        assert torch.equal(result, expected)


def test_shift_fills_with_the_background():
    moves = torch.zeros(2, COUNT, dtype=torch.int64)
    moved = shift(X, moves, 2, background=7)
    assert torch.all(moved[:, :, -2:, :] == 7)
    assert torch.equal(moved[:, :, :-2, :-2], X[:, :, 2:, 2:])


def test_flip_mirrors_only_the_chosen():
    mirrored = torch.arange(COUNT) % 2 == 0
    result = flip(X, mirrored)
    assert torch.equal(result[mirrored], X[mirrored].flip(-1))
    assert torch.equal(result[~mirrored], X[~mirrored])


def test_draws_are_uniform_shifts_and_fair_flips():
    count = 5000
    x = torch.zeros(count, 1, 9, 9, dtype=torch.uint8)
    x[:, 0, 4, 4] = 255
    data = Batches(x, torch.zeros(count, dtype=torch.int64), 100, mean=(0.0,), std=(1.0,), augment="shift")
    where = everything(data)[0].flatten(1).argmax(1)
    seen = torch.bincount(where, minlength=81).view(9, 9)
    assert seen[2:7, 2:7].sum() == count  # never farther than two pixels
    # 25 cells of 200: chi-square with 24 degrees of freedom stays below 73 with probability 1 - 1e-6.
    assert ((seen[2:7, 2:7] - 200) ** 2 / 200).sum() < 73
    x[:, 0, 4, 4] = 0
    x[:, 0, 4, 3] = 255
    data = Batches(x, torch.zeros(count, dtype=torch.int64), 100, mean=(0.0,), std=(1.0,), augment="flip")
    flipped = (everything(data)[0][:, 0, 4, 5] == 1).sum().item()
    assert abs(flipped - count / 2) < 5 * (count / 4) ** 0.5


def test_a_batch_written_to_leaves_the_set_alone():
    data = batches()
    x, y = next(iter(data))
    x.zero_(), y.zero_()
    assert torch.equal(everything(data)[1], Y)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"augment": "shfit"}, "Did you mean 'shift'"),
        ({"augment": "shift", "max_shift": 0}, "max_shift is 0"),
        ({"batch_size": COUNT + 1, "drop_last": True}, "make no batch"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(InputError, match=words):
        batches(**settings)


def test_bad_tensors():
    with pytest.raises(InputError, match="uint8"):
        Batches(X.float(), Y, 4, mean=MEAN, std=STD)
    with pytest.raises(InputError, match="one label for each"):
        Batches(X, Y[:-1], 4, mean=MEAN, std=STD)
    with pytest.raises(InputError, match="channels"):
        Batches(X, Y, 4, mean=(0.1,), std=(0.1,))
    with pytest.raises(InputError, match="0 images"):
        Batches(X[:0], Y[:0], 4, mean=MEAN, std=STD)


def test_dataset_batches_and_subset():
    data = dataset()
    assert data.train_batches(8, subset=20).images == 20
    x, y = everything(data.test_batches(4, subset=6))
    assert torch.equal(y, data.test_y[:6])
    assert torch.equal(x, data.normalise(data.test_x[:6]))
    assert not torch.equal(everything(data.train_batches(8))[1], data.train_y)
    with pytest.raises(InputError, match="1 to 53"):
        data.train_batches(8, subset=54)
    with pytest.raises(InputError, match="subset is 0"):
        data.test_batches(8, subset=0)


def test_split_validation_is_a_partition_with_every_class():
    labels = torch.cat([torch.zeros(30), torch.ones(20), torch.full((3,), 2)]).long()
    data = dataset(labels, classes=3)
    split = data.split_validation(18, seed=1)
    both = torch.cat([split.train_x, split.test_x]).flatten(1)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, X.flatten(1).tolist()))
    shares = torch.bincount(split.test_y, minlength=3).double()
    assert len(split.test_y) == 18
    assert torch.all((shares - torch.tensor([30, 20, 3]) * 18 / 53).abs() < 1)
    same, other = data.split_validation(18, seed=1), data.split_validation(18, seed=2)
    assert torch.equal(same.test_x, split.test_x)
    assert not torch.equal(other.test_x, split.test_x)
    for count in (0, COUNT):
        with pytest.raises(InputError, match="count"):
            data.split_validation(count)


def test_limit_takes_the_first_of_each_class():
    limited = dataset().limit(3)
    assert torch.equal(limited.train_y, torch.arange(15) % 5)
    assert torch.equal(limited.train_x, X[:15])
    with pytest.raises(InputError, match="1 to 10"):
        dataset().limit(11)


def test_dataset_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="labels 0 to 4 for 3 classes"):
        dataset(torch.arange(COUNT) % 5, classes=3)
    with pytest.raises(DataError, match="int64"):
        Dataset("toy", X, Y[:3], X, Y, MEAN, STD, tuple(map(str, Y.tolist())))
    with pytest.raises(DataError, match="uint8"):
        Dataset("toy", X.float(), Y, X, Y, MEAN, STD, tuple(map(str, Y.tolist())))


def test_a_data_set_moves_whole():
    moved = dataset().to("cpu")
    assert torch.equal(moved.train_x, X) and torch.equal(moved.test_y, dataset().test_y)


def test_batches_are_made_where_the_images_are():
    """On torch's device without memory nothing can be made elsewhere and brought along."""
    settings = {"mean": MEAN, "std": STD, "shuffle": True, "augment": ("shift", "flip")}
    for x, y in Batches(X.to("meta"), Y.to("meta"), 8, **settings):
        assert x.device.type == y.device.type == "meta" and x.dtype == torch.float32
