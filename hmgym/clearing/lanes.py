"""Eight float64 side by side as one value of a compiled kernel.

The compiler makes vector instructions of simple loops, if it can prove that arrays do not overlap. It cannot for
kernels that work on dozens of small arrays: a product of eight 4 x 4 matrices with eight vectors took 2.5 times as long
as with the type below, which needs no proof because a lane value lives in a register. On hardware with shorter vectors
it is two or four of them.

    a = load(x[g, i])                           eight numbers from a contiguous view whose last axis has length 8
    store(x[g, i], where(a > 0.0, a, -b))       arithmetic, comparisons, masks; numbers stand for eight equal ones

numba's disk cache does not see edits in this file: change the kernels that use it too (a space will do).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 8

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_NUMBERS = ir.VectorType(ir.DoubleType(), WIDTH)
_BITS = ir.VectorType(ir.IntType(1), WIDTH)
_INDICES = ir.VectorType(_INT32, WIDTH)
_ADDRESSES = ir.VectorType(_INT64, WIDTH)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


class _Mask(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Mask")


LANES, MASK = _Lanes(), _Mask()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _NUMBERS)


@register_model(_Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _BITS)


def _eight(builder: Any, value: Any, kind: Any) -> Any:
    """A number as eight equal ones; lanes as they are."""
    if kind == LANES:
        return value
    if isinstance(kind, types.Integer):
        value = builder.sitofp(value, ir.DoubleType())
    first = builder.insert_element(ir.Constant(_NUMBERS, ir.Undefined), value, _INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(_INDICES, [0] * WIDTH))


def _all_eight(builder: Any, values: Any, kinds: Any) -> list[Any]:
    return [_eight(builder, value, kind) for value, kind in zip(values, kinds, strict=True)]


# --- Operators


def _operator(symbol: Any, kind: Any, result: Any, build: Callable[..., Any], n_operands: int = 2) -> None:
    """Define a Python operator on lanes (and numbers) or on masks by the instruction that ``build`` makes."""
    accepted = (kind, types.Float, types.Integer) if kind == LANES else (kind,)

    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, operands: Any, _: Any) -> Any:
            fits = all(x == kind or isinstance(x, accepted[1:]) for x in operands)
            return signature(result, *operands) if len(operands) == n_operands and fits and kind in operands else None

    def lower(_: Any, builder: Any, sig: Any, operands: Any) -> Any:
        return build(builder, *(_all_eight(builder, operands, sig.args) if kind == LANES else operands))

    mixed = [] if n_operands == 1 else [pair for other in accepted[1:] for pair in ((kind, other), (other, kind))]
    for operands in [(kind,) * n_operands, *mixed]:
        lower_builtin(symbol, *(x if isinstance(x, type) else type(x) for x in operands))(lower)


def _arithmetic(name: str) -> Callable[..., Any]:
    return lambda builder, x, y: getattr(builder, name)(x, y, flags=("contract",))  # x y + z may be one instruction


def _comparison(symbol: str) -> Callable[..., Any]:
    return lambda builder, x, y: builder.fcmp_ordered(symbol, x, y)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    for _symbol in (getattr(operator, _name), getattr(operator, "i" + _name)):
        _operator(_symbol, LANES, LANES, _arithmetic(_instruction))
for _name, _sign in (("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">="), ("eq", "==")):
    _operator(getattr(operator, _name), LANES, MASK, _comparison(_sign))
_operator(operator.ne, LANES, MASK, lambda builder, x, y: builder.fcmp_unordered("!=", x, y))
_operator(operator.neg, LANES, LANES, lambda builder, x: builder.fneg(x), 1)
for _symbol in (operator.and_, operator.iand):
    _operator(_symbol, MASK, MASK, lambda builder, x, y: builder.and_(x, y))
for _symbol in (operator.or_, operator.ior):
    _operator(_symbol, MASK, MASK, lambda builder, x, y: builder.or_(x, y))
_operator(operator.invert, MASK, MASK, lambda builder, x: builder.not_(x), 1)


# --- Memory


def _address(context: Any, builder: Any, kind: Any, view: Any) -> Any:
    return context.make_array(kind)(context, builder, view).data


@intrinsic
def load(_: Any, view: Any) -> Any:
    """The eight numbers at which a contiguous view starts."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = builder.bitcast(_address(context, builder, sig.args[0], args[0]), _NUMBERS.as_pointer())
        return builder.load(start, align=8)

    return LANES(view), build


@intrinsic
def store(_: Any, view: Any, value: Any) -> Any:
    """Write eight numbers where a contiguous view starts."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = builder.bitcast(_address(context, builder, sig.args[0], args[0]), _NUMBERS.as_pointer())
        builder.store(_eight(builder, args[1], sig.args[1]), start, align=8)
        return context.get_dummy_value()

    return types.void(view, value), build


@intrinsic
def gather(_: Any, view: Any, steps: Any) -> Any:
    """The numbers that lie ``steps`` (lanes) behind the start of a contiguous view, which may reach beyond it."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = builder.ptrtoint(_address(context, builder, sig.args[0], args[0]), _INT64)
        first = builder.insert_element(ir.Constant(_ADDRESSES, ir.Undefined), start, _INT32(0))
        starts = builder.shuffle_vector(first, first, ir.Constant(_INDICES, [0] * WIDTH))
        steps = builder.sext(builder.fptosi(args[1], _INDICES), _ADDRESSES)
        steps = builder.mul(steps, ir.Constant(_ADDRESSES, [8] * WIDTH))  # bytes
        pointers = ir.VectorType(ir.DoubleType().as_pointer(), WIDTH)
        kind = ir.FunctionType(_NUMBERS, [pointers, _INT32, _BITS, _NUMBERS])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.gather.v{WIDTH}f64.v{WIDTH}p0")
        everywhere, nothing = ir.Constant(_BITS, [1] * WIDTH), ir.Constant(_NUMBERS, ir.Undefined)
        return builder.call(
            function, [builder.inttoptr(builder.add(starts, steps), pointers), _INT32(8), everywhere, nothing]
        )

    return LANES(view, steps), build


# --- Functions


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """Eight times the same number."""
    return LANES(number), lambda context, builder, sig, args: _eight(builder, args[0], sig.args[0])


@intrinsic
def lane_numbers(_: Any) -> Any:
    """0, 1, ..., 7."""
    return LANES(), lambda context, builder, sig, args: ir.Constant(_NUMBERS, [float(i) for i in range(WIDTH)])


@intrinsic
def where(_: Any, mask: Any, x: Any, y: Any) -> Any:
    """x in the lanes of the mask and y in the others."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(args[0], *_all_eight(builder, args[1:], sig.args[1:]))

    return LANES(mask, x, y), build


def _chosen(sign: str) -> Callable[..., Any]:
    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = _all_eight(builder, args, sig.args)
        return builder.select(builder.fcmp_ordered(sign, x, y), x, y)

    return build


@intrinsic
def least(_: Any, x: Any, y: Any) -> Any:
    """The smaller of two in each lane; y where x is NaN."""
    return LANES(x, y), _chosen("<")


@intrinsic
def most(_: Any, x: Any, y: Any) -> Any:
    """The larger of two in each lane; y where x is NaN."""
    return LANES(x, y), _chosen(">")


@intrinsic
def absolute(_: Any, x: Any) -> Any:
    """Without the sign."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_NUMBERS, [_NUMBERS])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fabs.v{WIDTH}f64"), args)

    return LANES(x), build


@intrinsic
def root(_: Any, x: Any) -> Any:
    """The square root of each."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_NUMBERS, [_NUMBERS])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f64"), args)

    return LANES(x), build


@intrinsic
def total(_: Any, x: Any) -> Any:
    """The sum of the eight, as one number, always in the same order: halves are added to each other."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, width = args[0], WIDTH
        while width > 1:
            width //= 2
            kind = ir.VectorType(_INT32, width)
            halves = [
                builder.shuffle_vector(value, value, ir.Constant(kind, list(range(part, part + width))))
                for part in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, _INT32(0))

    return types.float64(x), build


@intrinsic
def count(_: Any, mask: Any) -> Any:
    """The number of lanes in a mask."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.ctpop(builder.bitcast(args[0], ir.IntType(WIDTH))), _INT64)

    return types.int64(mask), build


@intrinsic
def some(_: Any, mask: Any) -> Any:
    """Whether there is a lane in the mask."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(WIDTH), 0))

    return types.boolean(mask), build
