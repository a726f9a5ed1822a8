"""Which importer serves which ONNX operator, from which opset version on."""

from __future__ import annotations

from collections.abc import Mapping

from onnxsmith_compiler.onnx.importers import (
    activation,
    attention,
    einsum,
    elementwise,
    generate,
    indexing,
    label_encoder,
    linear,
    ml,
    normalization,
    quantization,
    random,
    rearrange,
    recurrent,
    reduction,
    resize,
    shape,
    sorting,
    svm,
    tree_classifier,
    trees,
    vision,
    windows,
)
from onnxsmith_compiler.onnx.node_import import Importer

Versions = tuple[tuple[int, Importer], ...]


def _since(importer: Importer, version: int = 1) -> Versions:
    return ((version, importer),)


_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "BitwiseNot": "bitnot", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "IsNaN": "isnan", "Log": "log", "Neg": "neg", "Not": "not", "Reciprocal": "reciprocal", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus", "Sqrt": "sqrt",
    "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "And": "and", "BitwiseAnd": "bitand", "BitwiseOr": "bitor", "BitwiseXor": "bitxor", "Div": "div",
    "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Mul": "mul", "Or": "or",
    "Sub": "sub", "Xor": "xor",
}  # fmt: skip
_LEGACY_BROADCAST = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Sub", "Xor"})

ELEMENTWISE: Mapping[str, Versions] = {
    **{name: _since(elementwise.unary(function)) for name, function in _UNARY.items()},
    **{
        name: ((1, elementwise.legacy_binary(function)), (7, elementwise.binary(function)))
        if name in _LEGACY_BROADCAST
        else _since(elementwise.binary(function))
        for name, function in _BINARY.items()
    },
    "BitShift": _since(elementwise.bit_shift),
    "Cast": _since(elementwise.cast),
    "CastLike": _since(elementwise.cast_like),
    "Clip": _since(elementwise.clip),
    "Dropout": _since(elementwise.dropout),
    "Identity": _since(elementwise.identity),
    "IsInf": _since(elementwise.is_inf),
    "Max": _since(elementwise.variadic("max")),
    "Mean": _since(elementwise.mean),
    "Min": _since(elementwise.variadic("min")),
    "Mod": _since(elementwise.mod),
    "Pow": _since(elementwise.power),
    "Sum": _since(elementwise.variadic("add")),
    "Where": _since(elementwise.where),
}

ACTIVATION: Mapping[str, Versions] = {
    "Celu": _since(activation.celu),
    "Elu": _since(activation.elu),
    "Gelu": _since(activation.gelu),
    "HardSigmoid": _since(activation.hard_sigmoid),
    "HardSwish": _since(activation.hard_swish),
    "Hardmax": _since(activation.hardmax),
    "LeakyRelu": _since(activation.leaky_relu),
    "LogSoftmax": _since(activation.log_softmax),
    "Mish": _since(activation.mish),
    "PRelu": _since(activation.prelu),
    "Relu": _since(activation.relu),
    "Selu": _since(activation.selu),
    "Shrink": _since(activation.shrink),
    "Softmax": _since(activation.softmax),
    "Softsign": _since(activation.softsign),
    "Swish": _since(activation.swish),
    "ThresholdedRelu": _since(activation.thresholded_relu),
}

REDUCTION: Mapping[str, Versions] = {
    "ArgMax": _since(reduction.arg("argmax")),
    "ArgMin": _since(reduction.arg("argmin")),
    "ReduceL1": _since(reduction.l1),
    "ReduceL2": _since(reduction.l2),
    "ReduceLogSum": _since(reduction.log_sum),
    "ReduceLogSumExp": _since(reduction.log_sum_exp),
    "ReduceMax": _since(reduction.plain("max")),
    "ReduceMean": _since(reduction.mean),
    "ReduceMin": _since(reduction.plain("min")),
    "ReduceProd": _since(reduction.plain("prod")),
    "ReduceSum": _since(reduction.plain("sum")),
    "ReduceSumSquare": _since(reduction.sum_square),
}

SHAPE: Mapping[str, Versions] = {
    "Concat": _since(shape.concat),
    "Constant": _since(shape.constant),
    "ConstantOfShape": _since(shape.constant_of_shape),
    "Expand": _since(shape.expand),
    "Flatten": _since(shape.flatten),
    "Reshape": _since(shape.reshape),
    "Shape": _since(shape.shape),
    "Size": _since(shape.size),
    "Slice": _since(shape.slice_),
    "Split": _since(shape.split),
    "Squeeze": _since(shape.squeeze),
    "Transpose": _since(shape.transpose),
    "Unsqueeze": _since(shape.unsqueeze),
}

INDEXING: Mapping[str, Versions] = {
    "Compress": _since(indexing.compress),
    "Gather": _since(indexing.gather),
    "GatherElements": _since(indexing.gather_elements),
    "GatherND": _since(indexing.gather_nd),
    "NonZero": _since(indexing.nonzero),
    "Scatter": _since(indexing.scatter_elements),
    "ScatterElements": _since(indexing.scatter_elements),
    "ScatterND": _since(indexing.scatter_nd),
    "TensorScatter": _since(indexing.tensor_scatter),
}

SORTING: Mapping[str, Versions] = {
    "CumProd": _since(sorting.cumulative("mul")),
    "CumSum": _since(sorting.cumulative("add")),
    "NonMaxSuppression": _since(sorting.non_max_suppression),
    "TopK": _since(sorting.top_k),
    "Unique": _since(sorting.unique),
}

WINDOWS: Mapping[str, Versions] = {
    "AveragePool": _since(windows.average_pool),
    "Conv": _since(windows.conv),
    "ConvTranspose": _since(windows.conv_transpose),
    "GlobalAveragePool": _since(windows.global_pool("mean")),
    "GlobalLpPool": _since(windows.global_lp_pool),
    "GlobalMaxPool": _since(windows.global_pool("max")),
    "LpPool": _since(windows.lp_pool),
    "MaxPool": _since(windows.max_pool),
}

VISION: Mapping[str, Versions] = {
    "AffineGrid": _since(vision.affine_grid),
    "CenterCropPad": _since(vision.center_crop_pad),
    "Col2Im": _since(vision.col2im),
    "DeformConv": _since(vision.deform_conv),
    "GridSample": _since(vision.grid_sample),
    "MaxRoiPool": _since(vision.max_roi_pool),
    "MaxUnpool": _since(vision.max_unpool),
    "Resize": _since(resize.resize),
    "RoiAlign": _since(vision.roi_align),
    "Upsample": _since(resize.upsample),
}

NORMALIZATION: Mapping[str, Versions] = {
    "BatchNormalization": _since(normalization.batch_normalization),
    "GroupNormalization": _since(normalization.group_normalization),
    "InstanceNormalization": _since(normalization.instance_normalization),
    "LRN": _since(normalization.local_response_normalization),
    "LayerNormalization": _since(normalization.layer_normalization),
    "LpNormalization": _since(normalization.lp_normalization),
    "MeanVarianceNormalization": _since(normalization.mean_variance_normalization),
    "RMSNormalization": _since(normalization.rms_normalization),
}

LINEAR: Mapping[str, Versions] = {
    "Det": _since(linear.det),
    "Einsum": _since(einsum.einsum),
    "Gemm": _since(linear.gemm),
    "MatMul": _since(linear.matmul),
}

RANDOM: Mapping[str, Versions] = {
    "Bernoulli": _since(random.bernoulli),
    "Multinomial": _since(random.multinomial),
    "RandomNormal": _since(random.random_normal),
    "RandomNormalLike": _since(random.random_normal_like),
    "RandomUniform": _since(random.random_uniform),
    "RandomUniformLike": _since(random.random_uniform_like),
}

ATTENTION: Mapping[str, Versions] = {
    "Attention": _since(attention.attention, 23),
    "RotaryEmbedding": _since(attention.rotary_embedding, 23),
}

RECURRENT: Mapping[str, Versions] = {
    "GRU": _since(recurrent.gru),
    "LSTM": _since(recurrent.lstm),
    "RNN": _since(recurrent.rnn),
}

REARRANGING: Mapping[str, Versions] = {
    "DepthToSpace": _since(rearrange.depth_to_space),
    "Pad": _since(rearrange.pad),
    "ReverseSequence": _since(rearrange.reverse_sequence),
    "SpaceToDepth": _since(rearrange.space_to_depth),
    "Tile": _since(rearrange.tile),
}

GENERATING: Mapping[str, Versions] = {
    "EyeLike": _since(generate.eye_like),
    "OneHot": _since(generate.one_hot),
    "Range": _since(generate.range_),
    "Trilu": _since(generate.trilu),
}

QUANTIZATION: Mapping[str, Versions] = {
    "ConvInteger": _since(quantization.conv_integer),
    "DequantizeLinear": _since(quantization.dequantize_linear),
    "DynamicQuantizeLinear": _since(quantization.dynamic_quantize_linear),
    "MatMulInteger": _since(quantization.matmul_integer),
    "QLinearConv": _since(quantization.qlinear_conv),
    "QLinearMatMul": _since(quantization.qlinear_matmul),
    "QuantizeLinear": _since(quantization.quantize_linear),
}

CLASSICAL: Mapping[str, Versions] = {
    "ArrayFeatureExtractor": _since(ml.array_feature_extractor),
    "Binarizer": _since(ml.binarizer),
    "FeatureVectorizer": _since(ml.feature_vectorizer),
    "Imputer": _since(ml.imputer),
    "LabelEncoder": _since(label_encoder.label_encoder),
    "LinearClassifier": _since(ml.linear_classifier),
    "LinearRegressor": _since(ml.linear_regressor),
    "Normalizer": _since(ml.normalizer),
    "SVMClassifier": _since(svm.svm_classifier),
    "SVMRegressor": _since(svm.svm_regressor),
    "Scaler": _since(ml.scaler),
    "TreeEnsemble": _since(trees.tree_ensemble),
    "TreeEnsembleClassifier": _since(tree_classifier.tree_ensemble_classifier),
    "TreeEnsembleRegressor": _since(trees.tree_ensemble_regressor),
}

OPERATORS: Mapping[str, Mapping[str, Versions]] = {
    "": {
        **ELEMENTWISE,
        **ACTIVATION,
        **REDUCTION,
        **SHAPE,
        **LINEAR,
        **ATTENTION,
        **RECURRENT,
        **RANDOM,
        **WINDOWS,
        **VISION,
        **NORMALIZATION,
        **INDEXING,
        **SORTING,
        **REARRANGING,
        **GENERATING,
        **QUANTIZATION,
    },
    "ai.onnx.ml": CLASSICAL,
    "com.microsoft": {},
}


def find_importer(domain: str, op_type: str, version: int) -> Importer | None:
    """The importer for an operator of this opset version, None where it is not supported."""
    found: Importer | None = None
    for since, importer in OPERATORS.get(domain, {}).get(op_type, ()):
        if since <= version:
            found = importer
    return found
