"""What is traffic to a model provider: by host, by path, and by what governed model calls of this process did."""

from __future__ import annotations

import functools
import ipaddress
import re
import threading
from fnmatch import fnmatchcase
from typing import Final

__all__ = ["canonical", "is_provider_address", "is_provider_request", "learn", "remember_addresses"]

# Source: the API references of the providers, read 2026-11; for Azure, Bedrock and Vertex their endpoint tables.
# A region or a resource name is a star.
_HOSTS: Final = frozenset(
    {
        "api.openai.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
        "aiplatform.googleapis.com",
        "models.inference.ai.azure.com",
        "models.github.ai",
        "api.mistral.ai",
        "codestral.mistral.ai",
        "api.cohere.com",
        "api.cohere.ai",
        "api.groq.com",
        "api.together.xyz",
        "api.together.ai",
        "api.fireworks.ai",
        "openrouter.ai",
        "api.deepseek.com",
        "api.x.ai",
        "api.perplexity.ai",
        "api.cerebras.ai",
        "api.sambanova.ai",
        "api.deepinfra.com",
        "api.ai21.com",
        "api.voyageai.com",
        "api.moonshot.ai",
        "api.moonshot.cn",
        "api.z.ai",
        "open.bigmodel.cn",
        "api.minimax.io",
        "api.studio.nebius.ai",
        "integrate.api.nvidia.com",
        "router.huggingface.co",
        "api-inference.huggingface.co",
        "api.replicate.com",
        "ollama.com",
    }
)
_HOST_GLOBS: Final = (
    "*.api.openai.com",  # data residency, for example eu.api.openai.com
    "*.openai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.services.ai.azure.com",
    "*.models.ai.azure.com",
    "*-aiplatform.googleapis.com",
    "bedrock-runtime.*.amazonaws.com",
    "bedrock-runtime-fips.*.amazonaws.com",
    "bedrock-agent-runtime.*.amazonaws.com",
    "dashscope*.aliyuncs.com",
    "*.endpoints.huggingface.cloud",
)
# Ollama listens here. Source: docs/faq of ollama/ollama, OLLAMA_HOST.
_PORTS: Final = frozenset({11434})
# The end of the path of a POST. What serves a provider's protocol elsewhere (vLLM, LiteLLM, a gateway) has it too.
_PATH: Final = re.compile(
    r"/chat/completions"
    r"|/v1/(responses|messages|messages/batches|completions|complete)"
    r"|/embeddings"
    r"|/deployments/[^/]+/completions"  # Azure
    r"|/models/[^/]+:(generateContent|streamGenerateContent|embedContent|batchEmbedContents|predict|rawPredict"
    r"|streamRawPredict|generateText|generateMessage)"  # Google
    r"|/model/[^/]+/(converse|converse-stream|invoke|invoke-with-response-stream)"  # Bedrock
    r"|/(fim|agents)/completions"  # Mistral
    r"|/api/(chat|generate|embed|embeddings)"  # Ollama
)
_PATH_END: Final = re.compile(rf"({_PATH.pattern})/?\Z")
# A client asks them inside of a model call, but they are no models: identity, instance metadata, telemetry.
_NEVER_LEARNED: Final = (
    "oauth2.googleapis.com",
    "accounts.google.com",
    "metadata.google.internal",
    "169.254.*",
    "login.microsoftonline.com",
    "sts.*amazonaws.com",
    "*.smith.langchain.com",
)
_MOST_NAMES: Final = 4096


class _Seen:
    """What was seen so far. One for the process: connections and their pools outlive runs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.routes: set[tuple[str, int, str]] = set()
        """Host, port and path to which a governed model call posted."""
        self.addresses: set[tuple[str, int]] = set()
        """Host and port of those that speak a provider's protocol."""
        self.names: dict[str, str] = {}
        """The name by which an address was last looked up."""


_seen: Final = _Seen()


@functools.lru_cache(maxsize=1024)
def canonical(host: str) -> str:
    """Return a host in one spelling: lower case, no brackets, no zone, no final dot; this machine is `localhost`."""
    host = host.strip("[]").partition("%")[0].rstrip(".").lower()
    if host.endswith(".localhost") or host in {"", "ip6-localhost"}:
        return "localhost"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return "localhost" if address.is_loopback or address.is_unspecified else str(address)


@functools.lru_cache(maxsize=1024)
def _is_known(host: str, port: int) -> bool:
    return port in _PORTS or host in _HOSTS or any(fnmatchcase(host, glob) for glob in _HOST_GLOBS)


def is_provider_request(method: str, host: str, port: int, path: str) -> bool:
    """Return True for an HTTP request to a model.

    Args:
        method: In upper case.
        host: As `canonical` spells it.
        port: The one that is connected to.
        path: Without the query.
    """
    if _is_known(host, port):
        return True
    # A GET of such a path is not how any of them is asked; on other services it is an ordinary resource.
    return method == "POST" and (_PATH_END.search(path) is not None or (host, port, path) in _seen.routes)


def learn(method: str, host: str, port: int, path: str) -> None:
    """Keep where a governed model call sent a request; see `is_provider_request` for the arguments.

    Whole hosts are only learned for connections below HTTP: behind one gateway there may be models and other services.
    """
    if method != "POST" or (host, port, path) in _seen.routes:
        return
    if any(fnmatchcase(host, glob) for glob in _NEVER_LEARNED):
        return
    with _seen.lock:
        _seen.routes.add((host, port, path))
        if _is_known(host, port) or _PATH_END.search(path) is not None:
            _seen.addresses.add((host, port))


def is_provider_address(host: str, port: int) -> tuple[str, int] | None:
    """Return name and port where an address is one of a model provider, else None.

    Args:
        host: A name or an IP address.
        port: The port.
    """
    host = canonical(host)
    for name in (_seen.names.get(host, host), host):
        if _is_known(name, port) or (name, port) in _seen.addresses:
            return name, port
    return None


def remember_addresses(name: str, addresses: list[str]) -> None:
    """Keep the answer of a look-up: who connects names the address only.

    Args:
        name: What was looked up.
        addresses: What it resolves to. Providers share addresses with others, so the last name counts.
    """
    name = canonical(name)
    with _seen.lock:
        for address in map(canonical, addresses):
            if address in {name, "localhost"}:
                continue
            _seen.names.pop(address, None)
            _seen.names[address] = name
        while len(_seen.names) > _MOST_NAMES:
            del _seen.names[next(iter(_seen.names))]
