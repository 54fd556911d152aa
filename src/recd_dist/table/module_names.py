"""Names that torch's containers of modules use themselves: no feature or table stands under one, such as ``keys``.

``nn.ModuleDict`` refuses a module of such a name, and TorchRec keeps tables in one under their own names.
"""

from collections.abc import Collection

_NAMES = """
T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl _forward_hooks
_forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs
_get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook _load_from_state_dict
_load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook _modules _named_members
_non_persistent_buffers_set _parameters _register_load_state_dict_pre_hook _register_state_dict_hook
_replicate_for_data_parallel _save_to_state_dict _slow_forward _state_dict_hooks _state_dict_pre_hooks _version
_wrapped_call_impl add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double
dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys
load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop
register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu zero_grad
"""
_TAKEN = frozenset(_NAMES.split())
"""The attributes of ``nn.ModuleDict``; a test compares them with torch's. This room loads no torch."""


def is_taken(name: str) -> bool:
    """Whether a container of modules has an attribute of this name."""
    return name in _TAKEN


def module_key(name: str) -> str:
    """The key under which a module stands that belongs to a feature or group: its name, or the name and a hyphen.

    No feature has a hyphen in its name, so that two features never share a key.
    """
    return f"{name}-" if is_taken(name) else name


def table_name(column: str, columns: Collection[str]) -> str:
    """The name of the embedding table of a column for which nobody names one.

    Args:
        column: the name of the column.
        columns: the names of all columns, since each of them may name a table.
    """
    name = column
    while is_taken(name) or (name != column and name in columns):
        name = f"{name.lstrip('_') or 'column'}_table"
    return name
