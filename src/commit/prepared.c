/*-------------------------------------------------------------------------
 *
 * prepared.c
 *		What a prepared transaction has to tell when it is committed.
 *
 * Any session may execute COMMIT PREPARED, long after the one that knew what it
 * is about, after a restart, or on a standby that was promoted.  So whatever a
 * transaction would have told at its commit is marked at PREPARE by locks that it
 * takes on nothing in particular: the server keeps these with a prepared
 * transaction, through all that may happen to it, and gives them back at its end.
 * Whoever commits it looks first whether they are held.  Most transactions that
 * are prepared never had to do with us, and hold none.
 *
 * The tag of the locks is in the class of advisory locks, which are kept for the
 * transaction, too, but is none that SQL can ask for.  It has a hash of the
 * transaction's name.  Another of the same hash would only have somebody look for
 * nothing.
 *
 * Locks say that there is something to tell, and of what kind.  Which tasks these
 * are is kept in shared memory, for the last transactions that were prepared and
 * had few.  Of any other the scheduler has to read everything again.
 *
 * A subscription with two_phase prepares and commits transactions without
 * statements, by names that we do not learn.  Its worker looks, at each of its
 * commits, whether there was one that has something to tell.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lock.h"

#include "commit/commit.h"

/* Where a user's advisory lock has 1 or 2; the kinds are added. */
#define PREPARED_LOCK	0x7400

/* That of the PREPARE TRANSACTION that is being executed; "" if there is none. */
static char name[GIDSIZE] = "";

/* What this transaction has marked: PREPARED_... */
static int	marked = 0;

static void
prepared_tag(LOCKTAG *tag, const char *gid, int kind)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) gid, strlen(gid), 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 PREPARED_LOCK + kind);
}

/* Return whether another transaction holds that lock. */
static bool
prepared_is_held(const char *gid, int kind)
{
	LOCKTAG		tag;
	int			n;

	prepared_tag(&tag, gid, kind);
	(void) GetLockConflicts(&tag, ExclusiveLock, &n);
	return n > 0;
}

static PreparedHint *
prepared_hint(const char *gid)
{
	return &ts_shared->prepared[hash_bytes((const unsigned char *) gid, strlen(gid)) % TS_PREPARED];
}

/*
 * Count a transaction that is prepared without a name, and forget.  Comes after
 * those who mark, since it was registered before.
 */
static void
prepared_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PREPARE && marked != 0 && name[0] == '\0')
		pg_atomic_fetch_add_u32(&ts_shared->unnamed_prepared, 1);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		marked = 0;
		name[0] = '\0';
	}
}

/*
 * Set the callback: once a process, and only with shared memory, before those
 * who mark.
 */
void
prepared_init(void)
{
	RegisterXactCallback(prepared_xact_callback, NULL);
}

/* Remember the name by which the transaction is about to be prepared. */
void
prepared_set_name(const char *gid)
{
	strlcpy(name, gid, GIDSIZE);
}

/*
 * Mark, at PRE_PREPARE, that this transaction will have something of that kind
 * to tell.
 */
void
prepared_mark(int kind)
{
	LOCKTAG		tag;

	prepared_tag(&tag, name, 0);
	(void) LockAcquire(&tag, ShareLock, false, false);
	prepared_tag(&tag, name, kind);
	(void) LockAcquire(&tag, ShareLock, false, false);
	marked |= kind;
}

/*
 * Remember which tasks the scheduler is to be told of.  For PREPARE, when
 * nobody else has that name.  Nothing here can fail.
 */
void
prepared_remember(const TsNote *notes, int n, TimestampTz reread_from, TimestampTz gone_from)
{
	PreparedHint *hint = prepared_hint(name);

	if (name[0] == '\0')
		return;
	SpinLockAcquire(&ts_shared->prepared_mutex);
	strlcpy(hint->gid, name, GIDSIZE);
	hint->n = 0;
	hint->reread_from = reread_from;
	hint->gone_from = gone_from;
	for (int i = 0; i < n; i++)
	{
		if (n <= TS_PREPARED_NOTES)
			hint->notes[hint->n++] = notes[i];
		else
			hint->reread_from = Min(hint->reread_from, notes[i].run_at);
	}
	SpinLockRelease(&ts_shared->prepared_mutex);
}

/*
 * Find out what a prepared transaction of this database has to tell, in
 * general: PREPARED_...
 */
int
prepared_kinds(const char *gid)
{
	int			kinds = 0;

	if (max_prepared_xacts == 0 || !prepared_is_held(gid, 0))
		return 0;
	for (int kind = 1; kind <= PREPARED_LAST; kind *= 2)
	{
		if (prepared_is_held(gid, kind))
			kinds |= kind;
	}
	return kinds;
}

/*
 * Take what is known of the tasks of a prepared transaction, which has ended.
 * Return false if nothing is.  Nothing here can fail.
 */
bool
prepared_take(const char *gid, PreparedHint *taken)
{
	PreparedHint *hint = prepared_hint(gid);
	bool		found;

	SpinLockAcquire(&ts_shared->prepared_mutex);
	found = (gid[0] != '\0' && strncmp(hint->gid, gid, GIDSIZE) == 0);
	if (found)
	{
		*taken = *hint;
		hint->gid[0] = '\0';
	}
	SpinLockRelease(&ts_shared->prepared_mutex);
	return found;
}

/*
 * Return whether a commit could be that of a transaction that was prepared
 * without a statement, and has something to tell.
 */
bool
prepared_commits_unnamed(void)
{
	static bool there = true;	/* one, when last looked */
	static uint32 seen = 0;
	uint32		count;

	if (!IsLogicalWorker() || max_prepared_xacts == 0)
		return false;
	count = pg_atomic_read_u32(&ts_shared->unnamed_prepared);
	if (!there && count == seen)
		return false;
	seen = count;
	there = prepared_is_held("", 0);
	return true;
}
