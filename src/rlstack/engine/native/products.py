"""Products of matrices in machine code.

A tile of the result stays in vector registers while products are added up: numba's own loops read and write
it again for each of them, at a third of the speed.
"""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiled import compiled


def _vector_bytes() -> int:
    """Return how wide this processor's vectors are."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


BYTES = _vector_bytes()
"""Of a vector."""
_ROWS = 8 if BYTES == 64 else 6
"""Of a tile two vectors wide: with its sums, two vectors and a number it fits into the registers."""
_DEPTH = 64
"""Rows of the right matrix that stay in the first cache."""


def _tile(rows: int, vectors: int) -> Any:
    """Return what adds a @ b to the tile of c at [i, j], so many rows high and so many vectors wide."""

    @intrinsic
    def add_tile(context: Any, a: Any, i: Any, b: Any, j: Any, c: Any) -> Any:
        return types.void(a, i, b, j, c), generate

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        a, b, c = (context.make_array(kinds[n])(context, builder, args[n]) for n in (0, 2, 4))
        i, j, number = args[1], args[3], context.get_data_type(kinds[4].dtype)
        size = kinds[4].dtype.bitwidth // 8
        vector, byte = ir.VectorType(number, BYTES // size), ir.IntType(8)
        anything = ir.Constant(vector, ir.Undefined)
        all_first = ir.Constant(ir.VectorType(ir.IntType(32), BYTES // size), None)

        def strides(array: Any) -> Any:
            return cgutils.unpack_tuple(builder, array.strides)

        def at(pointer: Any, offset: Any, kind: Any) -> Any:
            place = builder.gep(builder.bitcast(pointer, byte.as_pointer()), [offset])
            return builder.bitcast(place, kind.as_pointer())

        def vectors_at(pointer: Any, offset: Any) -> list[Any]:
            offsets = [builder.add(offset, i.type(v * BYTES)) for v in range(vectors)]
            return [at(pointer, offset, vector) for offset in offsets]

        heights, across = [builder.add(i, i.type(r)) for r in range(rows)], builder.mul(j, i.type(size))
        left = [at(a.data, builder.mul(height, strides(a)[0]), byte) for height in heights]
        tile = [
            place
            for height in heights
            for place in vectors_at(c.data, builder.add(builder.mul(height, strides(c)[0]), across))
        ]
        sums = [cgutils.alloca_once_value(builder, builder.load(place, align=size)) for place in tile]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, a.shape)[1]) as loop:
            below = builder.add(builder.mul(loop.index, strides(b)[0]), across)
            right = [builder.load(place, align=size) for place in vectors_at(b.data, below)]
            along = builder.mul(loop.index, strides(a)[1])
            for r in range(rows):
                factor = builder.load(at(left[r], along, number), align=size)
                factor = builder.insert_element(anything, factor, ir.IntType(32)(0))
                factor = builder.shuffle_vector(factor, anything, all_first)
                for v, total in enumerate(sums[r * vectors : (r + 1) * vectors]):
                    product = builder.fmul(factor, right[v], flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for place, total in zip(tile, sums, strict=True):
            builder.store(builder.load(total), place, align=size)
        return context.get_dummy_value()

    return add_tile


_tall_wide, _tall_narrow, _row_wide, _row_narrow = (
    _tile(rows, vectors) for rows in (_ROWS, 1) for vectors in (2, 1)
)


@compiled
def add_product(a, b, c):
    """Add a [N, K] @ b [K, M] to c [N, M].

    M is whole vectors wide, and rows of b and c are in one piece; more of them than K or N are left alone.
    """
    lanes, tall = BYTES // c.itemsize, len(a) - len(a) % _ROWS
    for top in range(0, a.shape[1], _DEPTH):
        left, right = a[:, top : top + _DEPTH], b[top : top + _DEPTH]
        for j in range(0, c.shape[1], 2 * lanes):
            if j + lanes < c.shape[1]:
                for i in range(0, tall, _ROWS):
                    _tall_wide(left, i, right, j, c)
                for i in range(tall, len(a)):
                    _row_wide(left, i, right, j, c)
            else:
                for i in range(0, tall, _ROWS):
                    _tall_narrow(left, i, right, j, c)
                for i in range(tall, len(a)):
                    _row_narrow(left, i, right, j, c)
