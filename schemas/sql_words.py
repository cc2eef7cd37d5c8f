"""Words that must not name a domain or a product, because an engine reads them as something else."""

from __future__ import annotations

# Reserved in DuckDB 1.5 (`duckdb_keywords()`, category "reserved"), in Trino 476 ("Reserved keywords") or in Spark 4's
# ANSI mode ("ANSI compliance": SQL keywords). A test compares the list with the DuckDB that is installed.
RESERVED = frozenset(
    """
    all alter analyse analyze and any array as asc asymmetric authorization between both by case cast check collate
    column constraint create cross cube current_catalog current_date current_path current_role current_schema
    current_time current_timestamp current_user deallocate default deferrable delete desc describe distinct do drop
    else end escape except execute exists extract false fetch filter for foreign from full grant group grouping
    having in initially inner insert intersect into is join json_array json_exists json_object json_query
    json_table json_value lambda lateral leading left like limit listagg localtime localtimestamp natural normalize
    not null offset on only or order outer overlaps pivot pivot_longer pivot_wider placing prepare primary qualify
    recursive references returning right rollup select session_user show skip some sql summarize symmetric table
    then to trailing trim true uescape union unique unknown unnest unpivot user using values variadic when where
    window with within
    """.split()  # noqa: SIM905 (a hundred quotation marks help nobody to read it)
)

# Catalogs and schemas that DuckDB, Trino or Spark make themselves.
ENGINE_CATALOGS = frozenset(
    {"global_temp", "information_schema", "main", "memory", "pg_catalog", "spark_catalog", "system", "temp"}
)
# headrace's own: `governance` for what the mesh publishes about itself, `headrace` for topics that are no product's.
OWN_DOMAINS = frozenset({"governance", "headrace"})
