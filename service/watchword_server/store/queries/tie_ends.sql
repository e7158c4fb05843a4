-- When these lineages end; null for one that has.
select
  given.lineage, lineage_ends_at(given.lineage) as ends_at
from unnest($1::uuid []) as given (lineage)
