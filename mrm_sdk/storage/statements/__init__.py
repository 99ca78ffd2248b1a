"""The SQL statements, one module per kind of work; built once, run by :class:`~mrm_sdk.storage.store.Store`."""
