"""Checks a PEP 740 attestation of a wheel, without a network: by `pypi-attestations` (the extra `attestations`).

The roots of Sigstore that are used are those that its package brings, or that it has fetched before.
"""

from __future__ import annotations

from pathlib import Path

from oao_harness.errors import ConfigError, UsageError

__all__ = ["check_attestation"]

_MOST_BYTES = 4_000_000


def check_attestation(wheel: Path, attestation: Path, repository: str, workflow: str) -> str:
    """Return a line that says who attested a wheel.

    Args:
        wheel: The file, under the name that it was published by.
        attestation: What the index served for it, one attestation in JSON.
        repository: On GitHub, `owner/name`: it must have published the wheel.
        workflow: File name of the workflow that must have done it.

    Raises:
        ConfigError: The package is missing, a file cannot be read, or the attestation is not one of this wheel by this
            publisher.
    """
    if not repository or not workflow:
        raise UsageError(
            "an attestation says who published the wheel; say who must have: --publisher OWNER/NAME --workflow FILE"
        )
    try:
        from pydantic import ValidationError  # noqa: PLC0415
        from pypi_attestations import (  # noqa: PLC0415 - the extra `attestations`
            Attestation,
            AttestationError,
            Distribution,
            GitHubPublisher,
        )
        from sigstore.errors import Error as SigstoreError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"attestations need the package {error.name!r}: pip install 'oao-harness[attestations]' brings it"
        ) from error
    try:
        content = attestation.read_bytes()
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{attestation}: larger than {_MOST_BYTES:,} bytes; that is no attestation")
        read = Attestation.model_validate_json(content)
        publisher = GitHubPublisher(repository=repository, workflow=workflow)
        kind, _ = read.verify(publisher, Distribution.from_file(wheel), offline=True)
    except OSError as error:
        raise ConfigError(f"{error.filename or attestation}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise ConfigError(f"{attestation}: this is no attestation: {error.errors()[0]['msg']}") from error
    except (AttestationError, SigstoreError) as error:
        raise ConfigError(f"{wheel} is not what {repository} ({workflow}) attested: {error}; do not install it") from (
            error
        )
    return f"{wheel.name} was published by {repository} ({workflow}), attested as {kind}"
