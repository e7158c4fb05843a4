-- Stores successors, and gives the tokens that they succeed their ends. What a successor may do is that of its model's
-- row: of the token that it succeeds, or of a lost successor that it replaces. The ids are given a second time as
-- `= any`, for which the planner leaves out the partitions that they do not lie in.
with given as (
  select * from unnest(
    $1::uuid [], $2::smallint [], $3::bytea [], $4::smallint [], $5::timestamptz [], $6::timestamptz [], $7::uuid [],
    $8::uuid [], $9::uuid [], $10::timestamptz [], $11::text [], $12::text [], $13::bigint [],
    $14::uuid []
  ) as given (
    id, pepper_version, digest, digest_scheme, expires_at, idle_expires_at, lineage_id, model_id, rotated_id,
    rotated_ends_at, caller_subject, request_id, attempt, rotated_by
  )
),

stored as (
  insert into tokens (
    id, pepper_version, digest, digest_scheme, created_at, expires_at, idle_expires_at, lineage_id, predecessor_id,
    subject, audiences, scopes, grants, name, metadata, issued_by, kind, owner, idle_seconds, allowed_networks,
    certificate_sha256, tied_to, shortened, rotated_by
  )
  select
    given.id, given.pepper_version, given.digest, given.digest_scheme, now(), given.expires_at, given.idle_expires_at,
    given.lineage_id, given.rotated_id, model.subject, model.audiences, model.scopes, model.grants, model.name,
    model.metadata, model.issued_by, model.kind, model.owner, model.idle_seconds, model.allowed_networks,
    model.certificate_sha256, model.tied_to, model.shortened, given.rotated_by
  from given
  inner join tokens as model on given.model_id = model.id
  where model.id = any ($8::uuid [])
),

requests as (
  insert into issue_requests (caller_subject, request_id, token_id, attempt)
  select given.caller_subject, given.request_id, given.id, given.attempt
  from given
  where given.request_id is not null
  on conflict (caller_subject, request_id) do update
    set token_id = excluded.token_id, created_at = excluded.created_at, attempt = excluded.attempt
)

update tokens
set
  successor_id = given.id,
  rotated_at = coalesce(tokens.rotated_at, now()),
  expires_at = given.rotated_ends_at
from given
where tokens.id = given.rotated_id and tokens.id = any ($9::uuid [])
