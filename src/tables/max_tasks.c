/*-------------------------------------------------------------------------
 *
 * max_tasks.c
 *		How many tasks a role may have: taskshed.max_tasks_per_role.
 *
 * The limit must hold for transactions that do not see each other's rows, and
 * adding a task must not cost a count of them all.  So shared memory has an
 * upper bound of how many tasks a role has in a database.  Whoever adds a task
 * writes the row first and adds to the bound then; of two transactions the
 * one that comes second therefore either finds the bound raised or counts the
 * other's row.  Only a bound above the limit has the rows counted, those of
 * transactions in progress included, and is corrected.
 *
 * What a transaction has removed itself makes room for what it adds, but not
 * for others, since it may come back.  So that stays in the bound, and the
 * transaction remembers how many of it are its own.  Only until somebody else
 * counts, though: if it has added one of them again by then, that one is in
 * the bound just once.
 *
 * Nothing lowers a bound but counting: not the end of a task, of which most
 * come and go with a bound far below any limit, and not a rollback.  An entry
 * may be lost any time, by a restart or to another role, and then the first
 * to need it counts.
 *
 * Sessions without a limit make no entries, but add to those that are there:
 * others may have a limit for the same role.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"

#include "tables/tables.h"

/* An entry is at one of so many places. */
#define QUOTA_PLACES	8

/* The bound of an entry whose tasks have not been counted yet. */
#define QUOTA_UNKNOWN	(PG_INT64_MAX / 2)

/*
 * How many of a bound's tasks this transaction has removed, as of the last
 * count.  Forgotten when a part of it is rolled back: they may be there again.
 */
static struct
{
	Oid			owner;			/* invalid if nothing is known */
	uint32		count;			/* the one that made the bound */
	int64		removed;
}			mine;

static void
max_tasks_xact_callback(XactEvent event, void *arg)
{
	mine.owner = InvalidOid;
}

static void
max_tasks_subxact_callback(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		mine.owner = InvalidOid;
}

/* Set the callbacks: once a process, and only with shared memory. */
void
max_tasks_init(void)
{
	RegisterXactCallback(max_tasks_xact_callback, NULL);
	RegisterSubXactCallback(max_tasks_subxact_callback, NULL);
}

static uint32
max_tasks_hash(Oid owner)
{
	return hash_combine(murmurhash32(MyDatabaseId), murmurhash32(owner));
}

/*
 * Find a role's entry for this database, or NULL.  The caller holds quota_lock
 * exclusively.
 */
static TsQuota *
max_tasks_find(Oid owner)
{
	uint32		hash = max_tasks_hash(owner);

	Assert(LWLockHeldByMeInMode(ts_shared->quota_lock, LW_EXCLUSIVE));
	for (int i = 0; i < QUOTA_PLACES; i++)
	{
		TsQuota    *quota = &ts_shared->quotas[(hash + i) % TS_QUOTAS];

		if (quota->database == MyDatabaseId && quota->owner == owner)
			return quota;
	}
	return NULL;
}

/*
 * Make an entry for a role that has none, if need be in the place of another.
 * The caller holds quota_lock exclusively.
 */
static TsQuota *
max_tasks_make(Oid owner)
{
	uint32		hash = max_tasks_hash(owner);
	uint32		count = pg_atomic_fetch_add_u32(&ts_shared->quota_counts, 1);
	TsQuota    *quota = &ts_shared->quotas[(hash + count % QUOTA_PLACES) % TS_QUOTAS];

	Assert(LWLockHeldByMeInMode(ts_shared->quota_lock, LW_EXCLUSIVE));
	for (int i = 0; OidIsValid(quota->database) && i < QUOTA_PLACES; i++)
	{
		if (!OidIsValid(ts_shared->quotas[(hash + i) % TS_QUOTAS].database))
			quota = &ts_shared->quotas[(hash + i) % TS_QUOTAS];
	}
	quota->database = MyDatabaseId;
	quota->owner = owner;
	quota->count = count;
	quota->bound = QUOTA_UNKNOWN;
	quota->added = 0;
	return quota;
}

/* Note that a task of that role was added, whatever its limit: its row is there. */
void
max_tasks_note(Oid owner)
{
	TsQuota    *quota;

	/* the row first, then this: who makes an entry then counts the row */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&ts_shared->quota_counts) == 0)
		return;
	LWLockAcquire(ts_shared->quota_lock, LW_EXCLUSIVE);
	quota = max_tasks_find(owner);
	if (quota != NULL)
	{
		quota->bound++;
		quota->added++;
	}
	LWLockRelease(ts_shared->quota_lock);
}

/*
 * Note that a task of that role was added, and check its limit: the row is
 * there.  53400 if it now has more than it may have, or would if all other
 * transactions in progress committed what they have added, and not what they
 * have removed.
 */
void
max_tasks_add(Store *store, Oid owner)
{
	int			limit = ts_max_tasks_per_role;
	TsQuota    *quota;
	uint32		count;
	int64		added;
	bool		exceeded;
	int			n;
	int			removed;

	if (limit == 0 || superuser_arg(owner))
	{
		max_tasks_note(owner);
		return;
	}

	/* count it, which is all that has to be done far from the limit */
	LWLockAcquire(ts_shared->quota_lock, LW_EXCLUSIVE);
	quota = max_tasks_find(owner);
	if (quota == NULL)
		quota = max_tasks_make(owner);
	quota->bound++;
	quota->added++;
	exceeded = quota->bound > limit;
	if (exceeded && mine.owner == owner && mine.count == quota->count)
		exceeded = quota->bound - mine.removed > limit;
	count = quota->count;
	added = quota->added;
	LWLockRelease(ts_shared->quota_lock);
	if (!exceeded)
		return;

	/* so it seems: what there is to be counted includes all added so far */
	n = store_count_owned(store, owner, limit, &removed);
	if (n > limit)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("role \"%s\" cannot have more tasks in this database",
						GetUserNameFromId(owner, false)),
				 errdetail("The limit is %d.", limit),
				 errhint("Remove tasks that are no longer needed, failed and paused ones included. The limit is set by taskshed.max_tasks_per_role.")));

	/* if somebody else has counted meanwhile, that will do as well */
	LWLockAcquire(ts_shared->quota_lock, LW_EXCLUSIVE);
	quota = max_tasks_find(owner);
	mine.owner = InvalidOid;
	if (quota != NULL && quota->count == count)
	{
		quota->bound = (int64) n + removed + (quota->added - added);
		quota->count = pg_atomic_fetch_add_u32(&ts_shared->quota_counts, 1);
		mine.owner = owner;
		mine.count = quota->count;
		mine.removed = removed;
	}
	LWLockRelease(ts_shared->quota_lock);
}
