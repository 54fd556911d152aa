"""splitmix64 and everything that follows from it, in literals: what is on disk, or in a checkpoint, depends on them."""

import numpy as np
import pyarrow as pa
import torch

from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.etl.checksum.row_hashes import row_hashes
from recd_dist.etl.deal.assign_sessions import is_in_share
from recd_dist.etl.deal.spill import bucket_of
from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.reader.kernels import hash_ids
from recd_dist.reader.order import permutation
from recd_dist.synthetic import draw
from recd_dist.table.hash import GOLDEN, MIX_1, MIX_2, as_signed, scramble, splitmix64
from recd_dist.table.loops import scramble_one, splitmix64_one
from recd_dist.table.schema import Kind
from recd_dist.tensors import deduplicate

STATES = np.array([0, 1, 2**64 - 1], np.uint64)
DRAWN = [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20]
SCRAMBLED = [0, 0x5692161D100B05E5, 0xB4D055FCF2CBBD7B]
SESSIONS = np.array([0, 1, 2, -1, 2**63 - 1, -(2**63), 12345])


def test_the_numbers_of_splitmix64() -> None:
    """The first is what the authors' own generator draws first from the seed 0."""
    assert splitmix64(STATES).tolist() == [int(splitmix64_one(x)) for x in STATES] == DRAWN
    assert scramble(STATES).tolist() == [int(scramble_one(x)) for x in STATES] == SCRAMBLED


def test_constants_as_torch_writes_them() -> None:
    signed = [-7046029254386353131, -4658895280553007687, -7723592293110705685]
    assert [as_signed(constant) for constant in (GOLDEN, MIX_1, MIX_2)] == signed


def test_the_order_of_an_epoch() -> None:
    assert permutation(8).tolist() == [1, 2, 4, 0, 6, 7, 3, 5]
    assert permutation(8, 3, 1).tolist() == [7, 2, 3, 4, 0, 5, 6, 1]
    assert permutation(5, -1, 2**64 + 7).tolist() == [0, 4, 1, 3, 2]


def test_rows_of_hashed_ids() -> None:
    ids = np.array([-(2**63), -1, 0, 1, 2**40, 2**63 - 1])
    hash_ids(ids, 1_000_003, ids)
    assert ids.tolist() == [797915, 55612, 4995, 745530, 661465, 953673]


def test_what_the_etl_deals_by() -> None:
    assert bucket_of(SESSIONS, 8).tolist() == [0, 4, 1, 3, 7, 4, 5]
    assert bucket_of(SESSIONS, 4096).tolist() == [0, 2531, 966, 1564, 3612, 2048, 2578]
    assert np.flatnonzero(is_in_share(np.arange(40), 0.25)).tolist() == [0, 15, 20, 30, 32, 33]
    assert is_in_share(SESSIONS, 0.5).tolist() == [True, False, True, True, False, True, True]


def test_checksums_and_counts_of_the_etl() -> None:
    found = row_hashes(pa.array([[7], [], [7, 9]]), Kind.ids).tolist()
    assert found == [0xF2937D609347775B, 0x37DA5F06C15C85D6, 0x032FF714A49C2465]
    distinct = DistinctIds()
    distinct.add(np.arange(-500, 500))
    first = np.flatnonzero(distinct.registers)[:6]
    assert dict(zip(first.tolist(), distinct.registers[first].tolist(), strict=True)) == {
        12: 1, 24: 1, 28: 1, 53: 2, 54: 1, 60: 7
    }  # fmt: skip
    assert int(distinct.registers.sum()) == 1884


def test_synthetic_ids() -> None:
    assert draw.mix(STATES, 5).tolist() == [0x53CB9F0C747EA2EA, 0xC34D0BFF90150280, 0xD31DADBDA438BB33]
    starts, offsets, values = np.array([0, 10]), np.array([0, 2, 6]), np.empty(6, np.int32)
    draw.fill_ids(STATES[:2], starts, offsets, 1000, 617, draw.zipf_law(1000, 1.1), values)
    assert values.tolist() == [844, 170, 936, 595, 404, 340]
    liked = np.array([[1, 2], [3, 4]])
    draw.fill_items(STATES[:2], starts, offsets, liked, 0.7, 20, 50, 617, draw.zipf_law(50, 1.1), values)
    assert values.tolist() == [988, 637, 892, 380, 105, 551]


def test_candidates_of_equal_rows() -> None:
    mixed = deduplicate._mix(torch.from_numpy(STATES.view(np.int64)))
    assert mixed.numpy().view(np.uint64).tolist() == SCRAMBLED
    hashes = deduplicate._hash_rows(torch.tensor([7, 9, 7]), torch.tensor([2, 0, 1]))
    assert hashes.tolist() == [1540750626774553313, 6238072747940578789, 4851424803422594374]


def test_distinct_ids_of_a_batch() -> None:
    values, index, counts = distinct_ids(torch.tensor([7, 8, 7, 5]), 10, 1)
    assert (values.tolist(), index.tolist(), counts.tolist()) == ([7, 8, 5], [0, 1, 0, 2], [3, 0])
