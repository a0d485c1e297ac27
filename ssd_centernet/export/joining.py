"""TFLite files one behind the other in one file: the outputs of one are the inputs of the next."""

from __future__ import annotations

from tensorflow.lite.python import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_OLDEST = "min_runtime_version"


def join(first: bytes, second: bytes) -> bytes:
    """Put one model behind another.

    Integers that the first gives where the second takes float32 are turned into these.

    Args:
        first: a model with one signature.
        second: a model with one signature, whose inputs have the names of the first one's outputs.

    Returns:
        A model with the inputs of the first and the outputs of the second.

    Raises:
        ValueError: outputs and inputs differ in their names, shapes or types.
    """
    model, tail = read(first), read(second)
    _Joint(model, tail).join()
    return write(model)


def read(content: bytes) -> schema.ModelT:
    """Read a TFLite file into objects that can be changed."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def write(model: schema.ModelT) -> bytes:
    """Write what `read` gave."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def output_scales(content: bytes) -> dict[str, dict[str, float | int]]:
    """Return `scale` and `zero_point` of each output of a file, by its name in the signature.

    A value is (integer - zero_point) * scale.
    """
    model = read(content)
    scales = {}
    for item in model.signatureDefs[0].outputs:
        tensor = model.subgraphs[0].tensors[item.tensorIndex]
        found = tensor.quantization
        if found is None or found.scale is None or not len(found.scale):
            scales[item.name.decode()] = {"scale": 0.0, "zero_point": 0}
            continue
        scales[item.name.decode()] = {
            "scale": float(found.scale[0]),
            "zero_point": int(found.zeroPoint[0]),
        }
    return dict(sorted(scales.items()))


def float_operators(content: bytes) -> list[str]:
    """Return the names of the operators of a file that give float32, alphabetical."""
    model = read(content)
    graph, found = model.subgraphs[0], set()
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        types = {graph.tensors[int(number)].type for number in operator.outputs}
        if schema.TensorType.FLOAT32 in types:
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            names = vars(schema.BuiltinOperator).items()
            found |= {name for name, value in names if value == number and name.isupper()}
    return sorted(found)


class _Joint:
    """Two models and how far the numbers of the second one's parts move."""

    def __init__(self, model: schema.ModelT, tail: schema.ModelT):
        self.model, self.tail = model, tail
        self.main = model.subgraphs[0]
        self.buffers = len(model.buffers)
        self.codes = len(model.operatorCodes)
        # The first of the second one's subgraphs becomes a part of ours.
        self.subgraphs = len(model.subgraphs) - 1

    def join(self) -> None:
        """Move all parts of the second model into the first."""
        model, tail, main = self.model, self.tail, self.main
        (ours,), (theirs,) = model.signatureDefs, tail.signatureDefs
        given = {item.name.decode(): item.tensorIndex for item in ours.outputs}
        taken = {item.name.decode(): item.tensorIndex for item in theirs.inputs}
        if set(given) != set(taken):
            raise ValueError(f"outputs {sorted(given)} do not fit the inputs {sorted(taken)}.")
        model.buffers += tail.buffers
        model.operatorCodes += tail.operatorCodes
        for graph in tail.subgraphs:
            for tensor in graph.tensors:
                tensor.buffer += self.buffers
            for operator in graph.operators or ():
                operator.opcodeIndex += self.codes
                for name, value in getattr(operator.builtinOptions, "__dict__", {}).items():
                    if name.endswith("SubgraphIndex"):
                        setattr(operator.builtinOptions, name, value + self.subgraphs)
        theirs_main = tail.subgraphs[0]
        places = {}
        for name, index in taken.items():
            places[index] = self._adapted(name, given[name], theirs_main.tensors[index])
        for index, tensor in enumerate(theirs_main.tensors):
            if index not in places:
                places[index] = len(main.tensors)
                main.tensors.append(tensor)
        for operator in theirs_main.operators:
            # -1 marks an input that is left out.
            operator.inputs = [places.get(int(index), -1) for index in operator.inputs]
            operator.outputs = [places[int(index)] for index in operator.outputs]
            if operator.intermediates is not None:
                operator.intermediates = [places[int(index)] for index in operator.intermediates]
        main.operators += theirs_main.operators
        main.outputs = [places[int(index)] for index in theirs_main.outputs]
        for item in theirs.outputs:
            item.tensorIndex = places[item.tensorIndex]
        ours.outputs = theirs.outputs
        model.subgraphs += tail.subgraphs[1:]
        self._keep_newest_version()

    def _adapted(self, name: str, index: int, wanted: schema.TensorT) -> int:
        """Return the tensor that the second model takes, made of an output of the first."""
        tensor = self.main.tensors[index]
        given, taken = ([int(side) for side in one.shape] for one in (tensor, wanted))
        if given != taken:
            raise ValueError(f"{name}: {given} does not fit {taken} of the next model.")
        if tensor.type == wanted.type:
            return index
        types = schema.TensorType
        if wanted.type != types.FLOAT32 or tensor.type not in (types.INT8, types.INT16):
            raise ValueError(f"{name}: type {tensor.type} does not fit type {wanted.type}.")
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
        # Of 16 bits since version 3, of 8 signed bits since version 2.
        code.version = 3 if tensor.type == types.INT16 else 2
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = [index], [len(self.main.tensors)]
        operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = schema.DequantizeOptionsT()
        self.main.tensors.append(wanted)
        self.main.operators.append(operator)
        return len(self.main.tensors) - 1

    def _keep_newest_version(self) -> None:
        """Note the newer one of the versions that the runtime must have."""
        kept = {entry.name: entry.buffer for entry in self.model.metadata or ()}
        other = {entry.name: entry.buffer for entry in self.tail.metadata or ()}
        name = _OLDEST.encode()
        if name in kept and name in other:
            ours, theirs = (
                self.model.buffers[number] for number in (kept[name], other[name] + self.buffers)
            )
            ours.data = max(ours.data, theirs.data, key=_version)


def _version(data) -> list[int]:
    text = bytes(bytearray(data)).rstrip(b"\0").decode()
    return [int(part) for part in text.split(".") if part.isdigit()]
