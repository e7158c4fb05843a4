-- The attached partitions and their bounds.
select
  parent.relname as parent,
  child.relname as partition,
  pg_get_expr(child.relpartbound, child.oid) as bounds
from pg_inherits
inner join pg_class as parent on pg_inherits.inhparent = parent.oid
inner join pg_class as child on pg_inherits.inhrelid = child.oid
where parent.oid in (to_regclass('tokens'), to_regclass('token_usage'), to_regclass('audit_events'))
