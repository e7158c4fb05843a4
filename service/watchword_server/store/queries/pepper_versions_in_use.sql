-- Those of the given pepper versions that live tokens were stored with.
select given.version
from unnest($1::smallint []) as given (version)
where exists (
  select 1 from tokens
  where tokens.pepper_version = given.version and tokens.revoked_at is null and tokens.expires_at > now()
)
order by given.version
