from collections.abc import Iterable as _Iterable
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper

DESCRIPTOR: _descriptor.FileDescriptor

class Tensor(_message.Message):
    __slots__ = ("data", "dtype", "shape")
    class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Tensor.Dtype]
        FLOAT32: _ClassVar[Tensor.Dtype]
        UINT8: _ClassVar[Tensor.Dtype]
        BOOL: _ClassVar[Tensor.Dtype]

    UNKNOWN: Tensor.Dtype
    FLOAT32: Tensor.Dtype
    UINT8: Tensor.Dtype
    BOOL: Tensor.Dtype
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: Tensor.Dtype
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(
        self,
        dtype: Tensor.Dtype | str | None = ...,
        shape: _Iterable[int] | None = ...,
        data: bytes | None = ...,
    ) -> None: ...

class Ask(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: int | None = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: int | None = ...) -> None: ...

class Description(_message.Message):
    __slots__ = (
        "coding",
        "cols",
        "firmware",
        "g_max_uS",
        "g_min_uS",
        "i_max_uA",
        "i_min_uA",
        "input_bits",
        "latency_s",
        "max_batch",
        "max_repeats",
        "max_wait_s",
        "message_bytes",
        "model",
        "output_bits",
        "partial",
        "read_back",
        "rows",
        "serial",
        "signed",
        "tiles",
        "timeout_s",
        "v_max_V",
        "vendor",
        "version",
    )
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VENDOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    G_MIN_US_FIELD_NUMBER: _ClassVar[int]
    G_MAX_US_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    V_MAX_V_FIELD_NUMBER: _ClassVar[int]
    INPUT_BITS_FIELD_NUMBER: _ClassVar[int]
    I_MIN_UA_FIELD_NUMBER: _ClassVar[int]
    I_MAX_UA_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BITS_FIELD_NUMBER: _ClassVar[int]
    CODING_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_REPEATS_FIELD_NUMBER: _ClassVar[int]
    READ_BACK_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    version: int
    vendor: str
    model: str
    serial: str
    firmware: str
    tiles: int
    rows: int
    cols: int
    g_min_uS: float
    g_max_uS: float
    signed: bool
    v_max_V: float
    input_bits: int
    i_min_uA: float
    i_max_uA: float
    output_bits: int
    coding: str
    max_batch: int
    max_repeats: int
    read_back: bool
    partial: bool
    latency_s: float
    timeout_s: float
    message_bytes: int
    max_wait_s: float
    def __init__(
        self,
        version: int | None = ...,
        vendor: str | None = ...,
        model: str | None = ...,
        serial: str | None = ...,
        firmware: str | None = ...,
        tiles: int | None = ...,
        rows: int | None = ...,
        cols: int | None = ...,
        g_min_uS: float | None = ...,
        g_max_uS: float | None = ...,
        signed: bool | None = ...,
        v_max_V: float | None = ...,
        input_bits: int | None = ...,
        i_min_uA: float | None = ...,
        i_max_uA: float | None = ...,
        output_bits: int | None = ...,
        coding: str | None = ...,
        max_batch: int | None = ...,
        max_repeats: int | None = ...,
        read_back: bool | None = ...,
        partial: bool | None = ...,
        latency_s: float | None = ...,
        timeout_s: float | None = ...,
        message_bytes: int | None = ...,
        max_wait_s: float | None = ...,
    ) -> None: ...

class ProgramRequest(_message.Message):
    __slots__ = ("expects", "mask", "operation", "targets_uS", "tile", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TILE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_US_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    tile: int
    operation: str
    targets_uS: Tensor
    mask: Tensor
    expects: str
    def __init__(
        self,
        version: int | None = ...,
        tile: int | None = ...,
        operation: str | None = ...,
        targets_uS: Tensor | _Mapping | None = ...,
        mask: Tensor | _Mapping | None = ...,
        expects: str | None = ...,
    ) -> None: ...

class ProgramReply(_message.Message):
    __slots__ = ("achieved_uS", "energy_J", "operation", "pulses", "repeated", "status", "time_s", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ACHIEVED_US_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PULSES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    version: int
    operation: str
    achieved_uS: Tensor
    status: Tensor
    pulses: int
    energy_J: float
    time_s: float
    repeated: bool
    def __init__(
        self,
        version: int | None = ...,
        operation: str | None = ...,
        achieved_uS: Tensor | _Mapping | None = ...,
        status: Tensor | _Mapping | None = ...,
        pulses: int | None = ...,
        energy_J: float | None = ...,
        time_s: float | None = ...,
        repeated: bool | None = ...,
    ) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("expects", "tile", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TILE_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    tile: int
    expects: str
    def __init__(self, version: int | None = ..., tile: int | None = ..., expects: str | None = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("g_uS", "time_s", "valid", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    G_US_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    version: int
    g_uS: Tensor
    valid: Tensor
    time_s: float
    def __init__(
        self,
        version: int | None = ...,
        g_uS: Tensor | _Mapping | None = ...,
        valid: Tensor | _Mapping | None = ...,
        time_s: float | None = ...,
    ) -> None: ...

class MvmRequest(_message.Message):
    __slots__ = ("expects", "full_scale_uA", "inputs_V", "operation", "repeats", "tile", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TILE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_V_FIELD_NUMBER: _ClassVar[int]
    FULL_SCALE_UA_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    tile: int
    operation: str
    inputs_V: Tensor
    full_scale_uA: float
    repeats: int
    expects: str
    def __init__(
        self,
        version: int | None = ...,
        tile: int | None = ...,
        operation: str | None = ...,
        inputs_V: Tensor | _Mapping | None = ...,
        full_scale_uA: float | None = ...,
        repeats: int | None = ...,
        expects: str | None = ...,
    ) -> None: ...

class MvmReply(_message.Message):
    __slots__ = ("currents_uA", "flags", "operation", "temperature_K", "time_s", "valid", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    CURRENTS_UA_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_K_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    version: int
    operation: str
    currents_uA: Tensor
    valid: Tensor
    time_s: float
    temperature_K: float
    flags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(
        self,
        version: int | None = ...,
        operation: str | None = ...,
        currents_uA: Tensor | _Mapping | None = ...,
        valid: Tensor | _Mapping | None = ...,
        time_s: float | None = ...,
        temperature_K: float | None = ...,
        flags: _Iterable[str] | None = ...,
    ) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ("until_s", "version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_S_FIELD_NUMBER: _ClassVar[int]
    version: int
    until_s: float
    def __init__(self, version: int | None = ..., until_s: float | None = ...) -> None: ...

class CalibrationReply(_message.Message):
    __slots__ = ("identity", "residual", "temperature_K", "time_s", "valid_s", "values", "version")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: str | None = ..., value: float | None = ...) -> None: ...

    VERSION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_K_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    version: int
    identity: str
    time_s: float
    temperature_K: float
    residual: float
    valid_s: float
    values: _containers.ScalarMap[str, float]
    def __init__(
        self,
        version: int | None = ...,
        identity: str | None = ...,
        time_s: float | None = ...,
        temperature_K: float | None = ...,
        residual: float | None = ...,
        valid_s: float | None = ...,
        values: _Mapping[str, float] | None = ...,
    ) -> None: ...

class Line(_message.Message):
    __slots__ = ("line", "tile")
    TILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    tile: int
    line: int
    def __init__(self, tile: int | None = ..., line: int | None = ...) -> None: ...

class HealthReply(_message.Message):
    __slots__ = (
        "boot",
        "dead_cols",
        "dead_rows",
        "message",
        "ok",
        "programmed_tiles",
        "temperature_K",
        "time_s",
        "version",
    )
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_K_FIELD_NUMBER: _ClassVar[int]
    PROGRAMMED_TILES_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_COLS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    version: int
    ok: bool
    boot: str
    time_s: float
    temperature_K: float
    programmed_tiles: _containers.RepeatedScalarFieldContainer[int]
    dead_rows: _containers.RepeatedCompositeFieldContainer[Line]
    dead_cols: _containers.RepeatedCompositeFieldContainer[Line]
    message: str
    def __init__(
        self,
        version: int | None = ...,
        ok: bool | None = ...,
        boot: str | None = ...,
        time_s: float | None = ...,
        temperature_K: float | None = ...,
        programmed_tiles: _Iterable[int] | None = ...,
        dead_rows: _Iterable[Line | _Mapping] | None = ...,
        dead_cols: _Iterable[Line | _Mapping] | None = ...,
        message: str | None = ...,
    ) -> None: ...
