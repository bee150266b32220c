"""Evaluates IAM policies as AWS documents it: an explicit deny wins, otherwise one statement must allow the call.

A policy with an element or condition that is not evaluated here is an error, so that nothing is overlooked.
"""

import re

ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


def as_list(value):
    """A value, or a list of values, as a list."""
    return value if isinstance(value, list) else [value]


def matches(pattern, value):
    """Whether a text matches a pattern with `*` and `?`."""
    shape = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(shape, value, re.DOTALL) is not None


def holds(condition, context):
    """Whether all conditions of a statement hold. A key that the call does not have fails."""
    for operator, keys in (condition or {}).items():
        for key, wanted in keys.items():
            found = context.get(key)
            if found is None:
                return False
            if operator in ("StringEquals", "Bool"):
                fits = found in as_list(wanted)
            elif operator in ("ArnEquals", "ArnLike", "StringLike"):
                fits = any(matches(pattern, found) for pattern in as_list(wanted))
            else:
                raise ValueError(f"unknown operator {operator}")
            if not fits:
                return False
    return True


def names(principal, caller):
    """Whether a statement of a resource policy names the caller: an account id, or the name of a service."""
    if principal == "*":
        return True
    found = []
    for kind, values in principal.items():
        if kind not in ("AWS", "Service"):
            raise ValueError(f"unknown kind of principal {kind}")
        found += [re.sub(r"^arn:aws:iam::(\d{12}):root$", r"\1", value) for value in as_list(values)]
    return "*" in found or caller in found


def allows(documents, action, resource="*", context=None, caller=None):
    """Whether the policies together allow the call. `caller` is for policies of resources."""
    allowed = False
    for document in documents:
        for statement in as_list(document["Statement"]):
            if set(statement) - ELEMENTS:
                raise ValueError(f"unknown elements {set(statement) - ELEMENTS}")
            if caller is not None and not names(statement["Principal"], caller):
                continue
            if not any(matches(pattern.lower(), action.lower()) for pattern in as_list(statement["Action"])):
                continue
            patterns = as_list(statement.get("Resource", "*"))
            if not any(matches(pattern, resource) for pattern in patterns):
                continue
            if not holds(statement.get("Condition"), context or {}):
                continue
            if statement["Effect"] == "Deny":
                return False
            allowed = True
    return allowed


def actions(documents):
    """All actions that the policies allow, as written."""
    statements = [statement for document in documents for statement in as_list(document["Statement"])]
    return {action for statement in statements if statement["Effect"] == "Allow" for action in as_list(statement["Action"])}
