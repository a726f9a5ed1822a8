"""What is loaded to print kernels: neither numba nor what numba loads."""

from __future__ import annotations

import subprocess
import sys


def test_a_model_is_lowered_without_numba() -> None:
    code = (
        "import sys, onnx.parser\n"
        "from onnxsmith_compiler.codegen.target import Target\n"
        "from onnxsmith_compiler.onnx.loader import load_model\n"
        "from onnxsmith_compiler.options import CompileOptions\n"
        "from onnxsmith_compiler.pipeline import lower_model\n"
        'text = \'<ir_version: 10, opset_import: ["" : 20]>'
        " g (float[1,8,9,9] x, float[4] v) => (y, i) { y = Relu(x)  z, i = TopK <axis = -1> (v, k) }'\n"
        "model = onnx.parser.parse_model(text.replace('{', '<int64[1] k = {2}> {'))\n"
        "lowered = lower_model(load_model(model.SerializeToString()), CompileOptions(), Target.host())\n"
        "assert any('top_k' in step.kernel.source.label for step in lowered.steps), lowered.steps\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
