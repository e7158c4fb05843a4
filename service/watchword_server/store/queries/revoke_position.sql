-- Takes the next position. The row lock, held until the commit, is what makes positions commit in order and without
-- gaps; so this comes last in the transaction, and is never a sequence.
update feed
set position = feed.position + 1, mark = gen_random_uuid()
returning feed.epoch, feed.position
