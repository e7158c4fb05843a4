-- transactional: false
-- The indexes that the columns of 0003 need, over tables that may be large. Each partition's is built and committed by
-- itself: reads go on, and writes wait for one index of one partition. An index of the parent then takes on those that are
-- there and reads no rows. Stopped anywhere, it goes on from there when it is run again.
do $$
declare
  one record;
begin
  for one in
    with wanted (parent, suffix, definition) as (
      values
      ('tokens', '_by_owner', '(owner) where owner is not null'),
      ('tokens', '_by_tie', '(tied_to) where tied_to is not null'),
      ('tokens', '_by_predecessor', '(predecessor_id) where predecessor_id is not null'),
      ('tokens', '_by_rotator', '(rotated_by) where rotated_by is not null'),
      -- Few rows: rotated tokens that have not ended, for those that look whether they are still in use.
      ('tokens', '_in_grace', '(expires_at) where successor_id is not null and revoked_at is null'),
      -- Few rows: the latest of each lineage that was ever rotated.
      ('tokens', '_by_lineage', '(lineage_id) where lineage_id is not null and successor_id is null'),
      -- Says of a pepper version that no token needs it without reading the tokens. A version is in use for long, and so
      -- rows that lie together have the same: some bytes for every 32 pages.
      ('tokens', '_by_pepper', 'using brin (pepper_version) with (pages_per_range = 32)'),
      ('audit_events', '_denied', '(id) where outcome is not null')
    ),
    tables (parent, name) as (
      select inhparent, inhrelid::regclass::text from pg_inherits
      union all
      -- Last: null comes after all names.
      select to_regclass(parent), null from (values ('tokens'), ('audit_events')) as parents (parent)
    )
    select coalesce(tables.name, wanted.parent) as on_table, wanted.suffix, wanted.definition
    from wanted
    inner join tables on tables.parent = to_regclass(wanted.parent)
    where to_regclass(wanted.parent || wanted.suffix) is null
    order by tables.name, wanted.suffix
  loop
    execute format('create index if not exists %I on %s %s', one.on_table || one.suffix, one.on_table, one.definition);
    commit;
  end loop;
end
$$;
