-- Those of these lineages that any token which is not revoked is tied to.
select distinct tokens.tied_to
from tokens
where tokens.tied_to = any ($1::uuid []) and tokens.revoked_at is null
