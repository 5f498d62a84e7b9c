"""Every event of every run as a line of JSON in a file."""

from oao_audit_lines.listener import AuditLines

__all__ = ["AuditLines"]
