"""Makes what integer_test.cpp compares with: integer_reference.py FILE.

Random weights, and the tensors that the package compressed-tensors makes and stores of them in each scheme; inputs, and what the
package's layers give for them.
"""

import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp
from safetensors.torch import save_file

torch.set_num_threads(1)

SCHEMES = {  # bits, symmetric, group size or 0, format
    "w8": (8, True, 0, "int-quantized"),
    "w8_asym": (8, False, 0, "int-quantized"),
    "w8_packed": (8, True, 0, "pack-quantized"),
    "w8_packed_asym": (8, False, 32, "pack-quantized"),
    "w4": (4, True, 32, "pack-quantized"),
    "w4_asym": (4, False, 32, "pack-quantized"),
    "w4_bytes": (4, True, 64, "int-quantized"),
    "w4_rows_asym": (4, False, 0, "pack-quantized"),
}
SHAPES = [(64, 64), (41, 192), (70, 1216)]  # the last one has products of more than 1024 terms


def scheme_of(bits, symmetric, group, layout):
    weights = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group" if group else "channel",
                               group_size=group or None)
    return QuantizationScheme(targets=["Linear"], weights=weights, format=layout)


def compress(weight, scheme, dtype):
    """weight: float32. The tensors of the file."""
    args = scheme.weights
    groups = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))
    scale, zero = calculate_qparams(groups.amin(2).to(dtype), groups.amax(2).to(dtype), args)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    return BaseCompressor.get_value_from_registry(scheme.format).compress(state, scheme)


def find_scales(columns, args, dtype):
    """Of one group: scales and zero points [out, 1]."""
    scale, zero = calculate_qparams(columns.amin(1, keepdim=True).to(dtype), columns.amax(1, keepdim=True).to(dtype), args)
    return scale, zero


def gptq(weight, hessian, args, dtype, desc_act=False, block=128):
    """Frantar et al. 2022, algorithm 1, in the words of PyTorch. Scales [out, G], zero points [out, G], values [out, in]."""
    W, H, columns = weight.clone(), hessian.clone(), weight.shape[1]
    group = args.group_size or columns
    dead = H.diagonal() == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    found = [find_scales(W[:, g:g + group], args, dtype) for g in range(0, columns, group)]
    order = torch.argsort(H.diagonal(), descending=True, stable=True) if desc_act else torch.arange(columns)
    W, H = W[:, order], H[order][:, order]
    H += 0.01 * H.diagonal().mean() * torch.eye(columns)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    Q = torch.zeros_like(weight)
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        errors = torch.zeros(weight.shape[0], end - begin)
        for i in range(begin, end):
            column = order[i].item()
            if args.group_size and not desc_act and column % group == 0:
                found[column // group] = find_scales(W[:, column:column + group], args, dtype)
            scale, zero = found[column // group]
            q = fake_quantize(W[:, i:i + 1], scale.float(), zero, args.model_copy(update=dict(strategy="channel", group_size=None)))
            Q[:, column] = q[:, 0]
            errors[:, i - begin] = (W[:, i] - q[:, 0]) / inverse[i, i]
            W[:, i:end] -= errors[:, i - begin, None] * inverse[None, i, i:end]
        W[:, end:] -= errors @ inverse[begin:end, end:]
    return torch.cat([scale for scale, _ in found], 1), torch.cat([zero for _, zero in found], 1), Q


def gptq_cases(tensors):
    for number, (rows, columns) in enumerate([(48, 256), (40, 320)]):
        mixing = torch.randn(columns, columns) / columns**0.5
        inputs = torch.randn(2000, columns) @ mixing * torch.rand(columns).exp()
        inputs[:, 7] = 0  # never used
        weight, hessian = torch.randn(rows, columns) * 0.05, inputs.T @ inputs
        tensors |= {f"gptq.{number}.weight": weight, f"gptq.{number}.hessian": hessian}
        for name in ("w8", "w4", "w4_asym"):
            args = scheme_of(*SCHEMES[name]).weights
            for desc_act in (False, True):
                scale, zero, values = gptq(weight, hessian, args, torch.bfloat16, desc_act)
                key = f"gptq.{number}.{name}{'.desc_act' if desc_act else ''}"
                tensors |= {key + ".scale": scale, key + ".values": values}
                tensors[key + ".error"] = ((weight - values) @ inputs.T).norm() / (weight @ inputs.T).norm()


def main():
    torch.manual_seed(5)
    tensors = {}
    rounding = QuantizationArgs(num_bits=8, strategy="token", dynamic=True)
    for number, shape in enumerate(SHAPES):
        weight = torch.randn(shape) * 0.05
        weight[3] = 0  # a row of zeros
        weight[4] = weight[4].abs()
        x, bias = torch.randn(1, 5, shape[1]), torch.randn(shape[0])
        scale, zero = compute_dynamic_scales_and_zp(x, rounding, None)
        rounded = fake_quantize(x, scale, zero, rounding)
        tensors |= {f"{number}.weight": weight, f"{number}.x": x, f"{number}.bias": bias, f"{number}.rounded": rounded}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for name, settings in SCHEMES.items():
                scheme = scheme_of(*settings)
                key = f"{number}.{name}.{str(dtype).removeprefix('torch.')}"
                stored = compress(weight, scheme, dtype)
                tensors |= {f"{key}.{part}": tensor for part, tensor in stored.items()}
                compressor = BaseCompressor.get_value_from_registry(scheme.format)
                full = compressor.decompress(stored, scheme)["weight"]
                tensors[f"{key}.full"] = full
                if dtype == torch.float32:
                    tensors[f"{key}.y"] = torch.nn.functional.linear(x, full, bias)
                    tensors[f"{key}.dynamic"] = torch.nn.functional.linear(rounded, full, bias)
    gptq_cases(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, sys.argv[1])


main()
