"""Everything that is changed of other libraries."""
