"""Keys that lie encrypted in their files and are opened by a key service.

A wrapped file names its service, ``"wrapped_by": "aws-kms:KEY"``: who reads it needs no other setting, and a
copy of it is worth nothing without the service's leave. Other services fit in by `KeyWrapping`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from techdeck_tasks.errors import EncryptionError, ServiceUnavailableError

AWS_KMS = "aws-kms"


class KeyWrapping(Protocol):
    """Encrypts and decrypts single keys under a key that never leaves its service."""

    def wrap(self, key: bytes, key_id: str) -> bytes:
        """Return `key` encrypted, bound to `key_id`."""

    def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return what `wrap` was given.

        Raises:
            EncryptionError: it was changed, or is bound to another id, or access is refused.
            ServiceUnavailableError: the service cannot be reached.
        """


@lru_cache(maxsize=8)
def key_wrapping(name: str) -> KeyWrapping:
    """Return the wrapping called `name`, ``aws-kms:`` and a key's id, alias or ARN.

    Raises:
        EncryptionError: the service is unknown, or its client is not installed.
    """
    service, _, key = name.partition(":")
    if service != AWS_KMS or not key:
        raise EncryptionError(
            f"the key wrapping {name!r} is unknown; use {AWS_KMS}:KEY (id, alias/name or ARN)"
        )
    return AwsKms(key)


class AwsKms:
    """AWS KMS, by boto3; region and credentials are found where boto3 looks for them.

    Args:
        key: id, ``alias/name`` or ARN of a symmetric KMS key.
    """

    def __init__(self, key: str) -> None:
        try:
            import boto3  # noqa: PLC0415 - an optional extra
            from botocore.config import Config  # noqa: PLC0415 - as above
            from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as above
        except ModuleNotFoundError as error:
            raise EncryptionError(
                f"keys are wrapped by AWS KMS and {error.name} is not installed; "
                "pip install 'techdeck-tasks[kms]'"
            ) from None
        self._key = key
        try:
            self._client = boto3.client("kms", config=Config(connect_timeout=5, read_timeout=10))
        except BotoCoreError as error:
            raise EncryptionError(
                f"AWS KMS cannot be used ({type(error).__name__}); set AWS_REGION, and check AWS's settings",
                encryption_type="AWS KMS",
            ) from None

    def wrap(self, key: bytes, key_id: str) -> bytes:
        """Encrypt under the KMS key; the id is KMS's encryption context."""
        answer = self._call("encrypt", Plaintext=key, EncryptionContext={"techdeck_key_id": key_id})
        wrapped: bytes = answer["CiphertextBlob"]
        return wrapped

    def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Decrypt under the KMS key."""
        answer = self._call("decrypt", CiphertextBlob=wrapped, EncryptionContext={"techdeck_key_id": key_id})
        key: bytes = answer["Plaintext"]
        return key

    def _call(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an optional extra

        try:
            return getattr(self._client, operation)(KeyId=self._key, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise EncryptionError(
                f"AWS KMS refused to {operation} under {self._key} ({code}); "
                "check the key and this process's role",
                encryption_type="AWS KMS",
            ) from None
        except BotoCoreError as error:
            raise ServiceUnavailableError(
                f"AWS KMS cannot be asked to {operation} ({type(error).__name__}); "
                "check region and credentials",
                "aws-kms",
            ) from None
