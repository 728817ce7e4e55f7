"""Keys in files, and the symmetric cipher of messages and pipeline definitions.

Three folders, so that a process holds no more than its role needs:

    keys_dir          message.json             AES-256 keys of Celery messages, results, stored definitions
                      blind-index.json         HMAC keys that make user and subject searchable, not stored
                      audit-public.json        the public half of the audit log's recipient key
                      checkpoint-public.json   the public half of the key that signs the audit log's heads
    reader_keys_dir   audit-private.json       the private half; only who reads the audit log has it
    signing_keys_dir  checkpoint-private.json  the private half; only audit workers have it

A key file is JSON ``{"active": id, "keys": {id: base64}}``. New keys are added and become active; old ones
stay to open what they sealed. Files must belong to their reader alone (mode 0600). Where a file says
``"wrapped_by"``, its keys are encrypted by that service (AWS KMS) and are opened there when they are read.
"""

from techdeck_tasks.keyring.cipher import NONCE_BYTES, Cipher
from techdeck_tasks.keyring.files import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    MESSAGE_KEYS,
    KeyFolders,
    Purpose,
    generate_keys,
)
from techdeck_tasks.keyring.keyset import (
    KEY_BYTES,
    MAX_KEY_ID_BYTES,
    FollowedKeys,
    KeySet,
    MissingKeyError,
    key_id_of,
)
from techdeck_tasks.keyring.recipient import RecipientAlgorithm, open_with, public_half, seal_to

__all__ = [
    "AUDIT_PRIVATE_KEYS",
    "AUDIT_PUBLIC_KEYS",
    "BLIND_INDEX_KEYS",
    "CHECKPOINT_PRIVATE_KEYS",
    "CHECKPOINT_PUBLIC_KEYS",
    "KEY_BYTES",
    "MAX_KEY_ID_BYTES",
    "MESSAGE_KEYS",
    "NONCE_BYTES",
    "Cipher",
    "FollowedKeys",
    "KeyFolders",
    "KeySet",
    "MissingKeyError",
    "Purpose",
    "RecipientAlgorithm",
    "generate_keys",
    "key_id_of",
    "open_with",
    "public_half",
    "seal_to",
]
