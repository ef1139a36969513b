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
 * scheduler is away, the launcher is to start another in time; or to have one
 * look, if the task is gone for which it would have been.
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
#include "utils/timestamp.h"

#include "commit/commit.h"

/* More alarms of one transaction than this are not told one by one. */
#define NOTES_KEPT	64

/*
 * A scheduler that has come less than this (us) ago is not started again to see
 * that a task is gone: somebody may be adding and removing them all the time.
 */
#define GONE_INTERVAL	(10 * USECS_PER_SEC)

static struct
{
	int			n;
	TsNote		notes[NOTES_KEPT];
	TimestampTz reread_from;	/* DT_NOEND unless there were more */
	TimestampTz gone_from;		/* the earliest of tasks that are gone, or
								 * DT_NOEND */
	bool		pending;		/* anything at all to be told */
	bool		written;		/* that the database needs a scheduler for */
	TsDatabase *db;				/* reserved at PRE_COMMIT */
}			mine =

{
	.reread_from = DT_NOEND,
	.gone_from = DT_NOEND
};

static void
notes_forget(void)
{
	mine.n = 0;
	mine.reread_from = DT_NOEND;
	mine.gone_from = DT_NOEND;
	mine.pending = mine.written = false;
	mine.db = NULL;
}

/*
 * Return when a scheduler that is away is to come because of a commit that has
 * written tasks, the earliest of them for that time.  The caller has the
 * entry's mutex.
 */
static TimestampTz
notes_start_for(TsDatabase *db, TimestampTz earliest, TimestampTz now)
{
	TimestampTz start_at = earliest > now + IDLE_EXIT_LEAD ? earliest - IDLE_EXIT_LEAD : now;

	/* whether the first ones came with a copy is to be seen at once */
	if (db->empty)
		start_at = now;
	db->empty = false;
	db->next_wakeup = Min(db->next_wakeup, Max(earliest, now));
	return start_at;
}

/*
 * Return when it is to come because tasks are gone: DT_NOEND unless the one for
 * which it would have come may be among them.  It sees then when it has to come
 * next, if ever.
 */
static TimestampTz
notes_start_without(const TsDatabase *db, TimestampTz gone_from, TimestampTz now)
{
	if (gone_from > db->next_wakeup + IDLE_EXIT_LEAD && db->next_wakeup != DT_NOEND)
		return DT_NOEND;
	return Max(now, db->since + GONE_INTERVAL);
}

/*
 * Put notes into the ring.  Runs when the transaction is over already, so
 * nothing here can fail.
 */
static void
notes_deliver(TsDatabase *db, const TsNote *notes, int n, TimestampTz reread_from,
			  TimestampTz gone_from)
{
	TimestampTz earliest = reread_from;
	TimestampTz now = GetCurrentTimestamp();
	PGPROC	   *wake = NULL;
	bool		written = (n == 0 && gone_from == DT_NOEND) || reread_from != DT_NOEND;
	bool		come_back = false;

	/* leave them where the scheduler finds them */
	SpinLockAcquire(&db->mutex);
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
		if (!notes[i].gone)
		{
			written = true;
			earliest = Min(earliest, notes[i].run_at);
		}
	}
	/* (that tasks are gone is no work) */
	db->noted = db->noted || written;

	/*
	 * Wake it if it would come to them too late.  (One whose time is over
	 * sleeps only because the clock was set forward.)
	 */
	if (earliest < db->alarm || reread_from == DT_NOBEGIN ||
		(db->alarm != DT_NOBEGIN && db->alarm <= now))
		wake = db->scheduler;

	/* have it come back in time, if it is away */
	if (db->state == TS_DB_ASLEEP)
	{
		TimestampTz start_at = DT_NOEND;

		if (written)
			start_at = notes_start_for(db, earliest, now);
		if (gone_from != DT_NOEND)
			start_at = Min(start_at, notes_start_without(db, gone_from, now));
		come_back = (start_at < db->start_at);
		if (come_back)
			db->start_at = start_at;
	}
	SpinLockRelease(&db->mutex);

	if (wake != NULL)
		SetLatch(&wake->procLatch);
	database_want_scheduler(db);
	if (come_back)
		shared_wake_launcher();
}

/*
 * Deliver the notes of a prepared transaction that was committed; NULL if they
 * are not known.  Nothing here can fail.  (Without room for the database it has
 * no scheduler that could be told.)
 */
void
notes_tell_prepared(const PreparedHint *prepared)
{
	TsDatabase *db = database_try_reserve(MyDatabaseId);

	if (db == NULL)
	{
		shared_look_around();	/* when there is room */
		return;
	}
	if (prepared != NULL)
		notes_deliver(db, prepared->notes, prepared->n, prepared->reread_from, prepared->gone_from);
	else
		notes_deliver(db, NULL, 0, DT_NOBEGIN, DT_NOEND);
	database_release(db);
}

static void
notes_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && prepared_commits_unnamed())
	{
		notes_reread();
		changed_roles_note_any();
	}
	if (!mine.pending)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			mine.db = mine.written ? database_reserve(MyDatabaseId) :
				database_try_reserve(MyDatabaseId);
			break;

		case XACT_EVENT_COMMIT:
			if (mine.db != NULL)
			{
				notes_deliver(mine.db, mine.notes, mine.n, mine.reread_from, mine.gone_from);
				database_release(mine.db);
			}
			notes_forget();
			break;

		case XACT_EVENT_ABORT:
			if (mine.db != NULL)
				database_release(mine.db);
			notes_forget();
			break;

		case XACT_EVENT_PRE_PREPARE:
			/* is there room, as things stand? */
			if (mine.written)
				database_release(database_reserve(MyDatabaseId));
			prepared_mark(PREPARED_NOTES);
			break;

		case XACT_EVENT_PREPARE:
			prepared_remember(mine.notes, mine.n, mine.reread_from, mine.gone_from);
			notes_forget();
			break;

		default:
			break;
	}
}

/* Set the callback: once a process, and only with shared memory. */
void
notes_init(void)
{
	RegisterXactCallback(notes_xact_callback, NULL);
}

static void
notes_add_written(const TsNote *note)
{
	mine.pending = mine.written = true;
	if (mine.n < NOTES_KEPT)
		mine.notes[mine.n++] = *note;
	else
		mine.reread_from = Min(mine.reread_from, note->run_at);
}

/* Note that an alarm was written, which is to go off at run_at. */
void
notes_add(TimestampTz run_at, int64 id, Oid owner)
{
	TsNote		note = {.run_at = run_at,.id = id,.owner = owner};

	notes_add_written(&note);
}

/* Note that a run of a task was asked for, by the number of the request. */
void
notes_add_request(int64 number)
{
	TsNote		note = {.run_at = DT_NOBEGIN,.id = number,.request = true};

	notes_add_written(&note);
}

/*
 * Note that an alarm that was to go off at run_at will not; DT_NOEND: nor was
 * it to.  A scheduler that is there need not be told, but if it is, it starts
 * no worker for it.
 */
void
notes_add_gone(TimestampTz run_at, int64 id, Oid owner)
{
	TsNote		note = {.run_at = run_at,.id = id,.owner = owner,.gone = true};

	mine.pending = true;
	mine.gone_from = Min(mine.gone_from, run_at);
	if (mine.n < NOTES_KEPT)
		mine.notes[mine.n++] = note;
}

/* Have the scheduler come and look at everything. */
void
notes_reread(void)
{
	mine.pending = mine.written = true;
	mine.reread_from = DT_NOBEGIN;
}

/* Have the database get a scheduler, whatever is in its queue. */
void
notes_want_scheduler(void)
{
	mine.pending = mine.written = true;
}
