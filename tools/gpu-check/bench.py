"""Medians in PyTorch of what bench.ts measures: python3 bench.py report.json"""

import json
import sys
import time

import torch
import torch.nn.functional as F

device = "cuda"
torch.backends.cuda.matmul.allow_tf32 = False
rows = []


def measure(name, call):
    def block(calls=20):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / calls * 1e3

    block()
    times = sorted(block() for _ in range(11))
    rows.append({"name": name, "ms": float(f"{times[5]:.4g}")})


side, T, width, vocabulary, parameters = 4096, 2048, 4096, 50304, int(1e8)
dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def random(shape, dtype):
    return torch.randn(shape, device=device).to(dtype)


for name, dtype in dtypes.items():
    with torch.no_grad():
        a, b = random((side, side), dtype), random((side, side), dtype)
        measure(f"matmul {name}", lambda: a @ b)
        x = random((T, width), dtype)
        measure(f"softmax {name}", lambda: F.softmax(x, -1))
        measure(f"gelu {name}", lambda: F.gelu(x))
        measure(f"layerNorm {name}", lambda: F.layer_norm(x, (width,)))
        q, k, v = (random((4, 16, T, 64), dtype) for _ in range(3))
        measure(f"attention {name}", lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
for name, dtype in dtypes.items():
    q, k, v = (random((4, 16, T, 64), dtype).requires_grad_() for _ in range(3))

    def both():
        F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        q.grad = k.grad = v.grad = None

    measure(f"attention with gradients {name}", both)
logits = random((T, vocabulary), torch.float32).requires_grad_()
target = torch.randint(vocabulary, (T,), device=device)


def loss():
    F.cross_entropy(logits, target).backward()
    logits.grad = None


measure("cross entropy with gradients float32", loss)
parameter = torch.nn.Parameter(random((parameters,), torch.float32))
parameter.grad = random((parameters,), torch.float32)
optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
measure("AdamW float32", optimizer.step)

with open(sys.argv[1], "w") as file:
    json.dump(rows, file, indent=1)
print(f"{len(rows)} measurements on {torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
