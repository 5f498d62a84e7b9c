"""`oao fuzz`: searches for an agent program that breaks a rule although a policy is in force. Needs `hypothesis`.

Importing this package imports none of its modules.
"""
