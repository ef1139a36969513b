/*-------------------------------------------------------------------------
 *
 * notes.c
 *		What a transaction scheduled, told to the scheduler at its commit.
 *
 * Whoever writes an alarm notes it here.  Nothing leaves this process before
 * the transaction commits.  At PRE_COMMIT, when an error still is only an
 * error, the database's entry in shared memory is made sure of; at COMMIT,
 * when the rows are visible to all, the notes go into its ring and the
 * scheduler's latch is set, if one of them is earlier than its alarm.  If the
 * scheduler is away, the launcher is to start another in time.
 *
 * Notes of a subtransaction that rolled back are delivered too: the scheduler
 * looks the rows up and finds nothing.  A transaction that writes more than a
 * few alarms, or a ring that is full, leaves only "read again from this time
 * on".
 *
 * A transaction that is prepared leaves its notes with prepared.c, for whoever
 * commits it.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "taskshed.h"

/* More alarms of one transaction than this are not told one by one. */
#define NOTES_KEPT	64

static struct
{
	int			n;
	TsNote		notes[NOTES_KEPT];
	TimestampTz reread_from;	/* DT_NOEND unless there were more */
	bool		pending;		/* anything at all to be told */
	TsDatabase *db;				/* reserved at PRE_COMMIT */
	bool		roles;			/* roles may have changed */
}			mine =

{
	.reread_from = DT_NOEND
};

static void
notes_forget(void)
{
	mine.n = 0;
	mine.reread_from = DT_NOEND;
	mine.pending = false;
	mine.db = NULL;
}

/*
 * Puts notes into the ring.  Runs when the transaction is over already, so
 * nothing here can fail.
 */
static void
notes_deliver(TsDatabase *db, const TsNote *notes, int n, TimestampTz reread_from)
{
	TimestampTz earliest = reread_from;
	TimestampTz now = GetCurrentTimestamp();
	PGPROC	   *wake = NULL;
	bool		come_back = false;

	SpinLockAcquire(&db->mutex);
	db->noted = true;
	db->reread_from = Min(db->reread_from, reread_from);
	for (int i = 0; i < n; i++)
	{
		if (db->notes_tail - db->notes_head < TS_NOTES)
			db->notes[db->notes_tail++ % TS_NOTES] = notes[i];
		else
		{
			/* no room: have the scheduler come and read */
			db->reread_from = Min(db->reread_from, notes[i].run_at);
			wake = db->scheduler;
		}
		earliest = Min(earliest, notes[i].run_at);
	}
	/* (one whose time is over sleeps only because the clock was set forward) */
	if (earliest < db->alarm || reread_from == DT_NOBEGIN ||
		(db->alarm != DT_NOBEGIN && db->alarm <= now))
		wake = db->scheduler;
	if (db->state == TS_DB_ASLEEP)
	{
		TimestampTz start_at = earliest > now + REST_LEAD ? earliest - REST_LEAD : now;

		/* whether the first ones came with a copy is to be seen at once */
		if (db->empty)
			start_at = now;
		db->empty = false;
		db->next_wakeup = Min(db->next_wakeup, Max(earliest, now));
		come_back = (start_at < db->start_at);
		if (come_back)
			db->start_at = start_at;
	}
	SpinLockRelease(&db->mutex);

	if (wake != NULL)
		SetLatch(&wake->procLatch);
	shared_want_scheduler(db);
	if (come_back)
		shared_wake_launcher();
}

/*
 * A prepared transaction that had notes was committed: delivers them; NULL if
 * they are not known.  Nothing here can fail.  (Without room for the database it has
 * no scheduler that could be told.)
 */
void
notes_tell_prepared(const PreparedHint *prepared)
{
	TsDatabase *db = shared_try_reserve_database(MyDatabaseId);

	if (db == NULL)
	{
		shared_look_around();	/* when there is room */
		return;
	}
	if (prepared != NULL)
		notes_deliver(db, prepared->notes, prepared->n, prepared->reread_from);
	else
		notes_deliver(db, NULL, 0, DT_NOBEGIN);
	shared_release_database(db);
}

static void
notes_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && prepared_commits_unnamed())
	{
		notes_reread();
		notes_roles_changed();
	}
	if (event == XACT_EVENT_PRE_PREPARE && mine.roles)
		prepared_mark(PREPARED_ROLES);
	if (event == XACT_EVENT_PREPARE)
		mine.roles = false;
	if (!mine.pending)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			mine.db = shared_reserve_database(MyDatabaseId);
			break;

		case XACT_EVENT_COMMIT:
			notes_deliver(mine.db, mine.notes, mine.n, mine.reread_from);
			shared_release_database(mine.db);
			notes_forget();
			break;

		case XACT_EVENT_ABORT:
			if (mine.db != NULL)
				shared_release_database(mine.db);
			notes_forget();
			break;

		case XACT_EVENT_PRE_PREPARE:
			/* is there room, as things stand? */
			shared_release_database(shared_reserve_database(MyDatabaseId));
			prepared_mark(PREPARED_NOTES);
			break;

		case XACT_EVENT_PREPARE:
			prepared_remember(mine.notes, mine.n, mine.reread_from);
			notes_forget();
			break;

		default:
			break;
	}
}

/*
 * Others can learn of a changed role only when the server has told everybody
 * that their caches are out of date, which comes after the callbacks of a
 * commit and before the locks are released.
 */
static void
notes_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (!mine.roles || !is_top_level || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	mine.roles = false;
	if (is_commit)
		shared_tell_role_change();
}

/* Once a process, and only with shared memory. */
void
notes_init(void)
{
	RegisterXactCallback(notes_xact_callback, NULL);
	RegisterResourceReleaseCallback(notes_release_callback, NULL);
}

/* An alarm was written that is to go off at run_at. */
void
notes_add(TimestampTz run_at, int64 id, Oid owner)
{
	TsNote		note = {run_at, id, owner};

	mine.pending = true;
	if (mine.n < NOTES_KEPT)
		mine.notes[mine.n++] = note;
	else
		mine.reread_from = Min(mine.reread_from, run_at);
}

/*
 * An alarm that was to go off at run_at will not.  The scheduler need not be
 * told, but if it is, it starts no worker for it.
 */
void
notes_add_gone(TimestampTz run_at, int64 id, Oid owner)
{
	if (mine.n < NOTES_KEPT)
		notes_add(run_at, id, owner);
}

/* The scheduler is to come and look at everything. */
void
notes_reread(void)
{
	mine.pending = true;
	mine.reread_from = DT_NOBEGIN;
}

/* What is known of roles may be out of date, in all databases. */
void
notes_roles_changed(void)
{
	mine.roles = true;
}

/* The database is to have a scheduler, whatever is in its queue. */
void
notes_want_scheduler(void)
{
	mine.pending = true;
}
