-- The tables that lie beside `tokens`, those that have no partitions and the partitions of the others: their size with all
-- indexes, and about how many rows, as the statistics have it.
select
  coalesce(parent.relname, own.relname) as table_name,
  case when parent.relname is not null then own.relname end as partition_name,
  pg_get_expr(own.relpartbound, own.oid) as bounds,
  coalesce(nullif(pg_stat_get_live_tuples(own.oid), 0), greatest(own.reltuples, 0))::bigint as rows_estimate,
  pg_total_relation_size(own.oid) as size_bytes
from pg_class as own
left join pg_inherits on own.oid = pg_inherits.inhrelid
left join pg_class as parent on pg_inherits.inhparent = parent.oid
where
  own.relkind = 'r'
  and own.relnamespace = (select tokens.relnamespace from pg_class as tokens where tokens.oid = to_regclass('tokens'))
