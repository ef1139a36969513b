/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *		What a scheduler does beside handing out tasks.
 *
 * What looks at tables is a transaction of its own, and short: tasks wait
 * meanwhile.  What is to be done now and then is called in each round, and knows
 * whether it is time.  A full disk and the like does not end the process; what
 * could not be written is tried again.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* Tasks that have failed long ago are looked for at most this often (us). */
#define EXPIRE_INTERVAL		(30 * USECS_PER_SEC)

/* Tasks that have failed long ago are removed so many at a time. */
#define EXPIRE_BATCH		1000

/* From this many failed tasks on, the log mentions them, once a day. */
#define MANY_FAILED			10000

/* Interrupted runs that could not be recorded are tried again after this (us). */
#define LOSSES_INTERVAL		USECS_PER_SEC

/* The history is looked after at most this often (us). */
#define HISTORY_INTERVAL	(10 * USECS_PER_SEC)

/* Begin a transaction with a snapshot. */
static void
maintenance_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetLatestSnapshot());
}

/* Commit the transaction of maintenance_begin. */
static void
maintenance_commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Roll back after an error in a transaction without which the scheduler can go
 * on, and say so in the log.  That is meant for a full disk and the like; any
 * other error ends the process.
 */
static void
maintenance_do_without(MemoryContext context, const char *what)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (!shortage_caused(error))
		PG_RE_THROW();
	HOLD_INTERRUPTS();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("%s: %s", what, error->message),
			 errdetail("This will be tried again.")));
	FreeErrorData(error);
}

/*
 * Write down runs that have lost their workers.  Return when to try again;
 * DT_NOEND if that is not needed.
 */
TimestampTz
maintenance_write_losses(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool again = false;

	if (!lost_runs_exist())
		return DT_NOEND;
	PG_TRY();
	{
		Store	   *store;

		maintenance_begin();
		store = store_try_open(RowExclusiveLock);
		if (store != NULL)
		{
			again = lost_runs_write(store);
			store_close(store, NoLock);
		}
		maintenance_commit();
		if (store != NULL)
			lost_runs_written();
	}
	PG_CATCH();
	{
		maintenance_do_without(context, "could not record interrupted runs");
		again = true;
	}
	PG_END_TRY();
	return again ? GetCurrentTimestamp() + LOSSES_INTERVAL : DT_NOEND;
}

/* Have tasks run once more that somebody has asked for.  Return when to do so again. */
TimestampTz
maintenance_settle_asked(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;

	if (asked_settle_at() > GetCurrentTimestamp())
		return asked_settle_at();
	PG_TRY();
	{
		Store	   *store;

		maintenance_begin();
		store = store_try_open(RowExclusiveLock);
		if (store != NULL)
		{
			asked_settle(store);
			store_close(store, NoLock);
		}
		maintenance_commit();
		if (store != NULL)
			asked_settled();
		failed = (store == NULL);
	}
	PG_CATCH();
	{
		maintenance_do_without(context, "could not have tasks run that were asked for");
		asked_note_all();
		failed = true;
	}
	PG_END_TRY();
	return failed ? GetCurrentTimestamp() + LOSSES_INTERVAL :
		Max(asked_settle_at(), GetCurrentTimestamp());
}

/* Keep roles out whose tasks must not run.  Return when to look again. */
TimestampTz
maintenance_admit(Oid database)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz look_again;
	volatile TimestampTz again;

	if (!admission_is_needed(&look_again))
		return look_again;
	again = look_again;
	PG_TRY();
	{
		maintenance_begin();
		if (admission_check(database))
			again = DT_NOBEGIN;
		maintenance_commit();
	}
	PG_CATCH();
	{
		maintenance_do_without(context, "could not record failed tasks");
		again = GetCurrentTimestamp() + LOSSES_INTERVAL;
	}
	PG_END_TRY();
	return again;
}

/*
 * Report a run that has ignored the end of its time, a cancel and a
 * termination, once.  It is left alone: ending it by force would restart the
 * server.
 */
void
maintenance_report_stuck(int64 id, int pid)
{
	Store	   *store;
	TaskRow		task;

	maintenance_begin();
	store = store_try_open(AccessShareLock);
	if (store != NULL && store_get_task(store, id, &task))
		ereport(WARNING,
				(errmsg("task \"%s\" has used up its time and does not react to being stopped",
						TextDatumGetCString(ROW_DATUM(&task, task_task_id))),
				 errdetail("Worker process %d calls %s.", pid,
						   TextDatumGetCString(ROW_DATUM(&task, task_callback))),
				 errhint("It is left alone. Ending it with SIGKILL would restart the server.")));
	if (store != NULL)
		store_close(store, AccessShareLock);
	maintenance_commit();
}

/*
 * Keep the history in bounds: at the start, which tells the workers where to
 * record runs, and then as long as there are any.
 */
void
maintenance_maintain_history(TsDatabase *db)
{
	static TimestampTz maintained_at = 0;
	static int64 runs = -1;
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	int64		runs_now;

	SpinLockAcquire(&db->mutex);
	runs_now = db->counts.runs_ok + db->counts.runs_failed;
	SpinLockRelease(&db->mutex);
	if (maintained_at != 0 &&
		now - maintained_at < (runs_now != runs ? HISTORY_INTERVAL :
							   Min(USECS_PER_HOUR, ts_history_retention * USECS_PER_MINUTE / TS_HISTORY_PARTS)))
		return;
	maintained_at = now;
	runs = runs_now;

	PG_TRY();
	{
		maintenance_begin();
		if (store_exists())
			history_maintain(db);
		maintenance_commit();
	}
	PG_CATCH();
	{
		maintenance_do_without(context, "could not keep the history in bounds");
	}
	PG_END_TRY();
}

/*
 * Remove tasks that have failed before that time, as many as are read at
 * once.  Return whether there may be more.
 */
static bool
maintenance_expire_batch(TimestampTz before)
{
	int64		ids[EXPIRE_BATCH];
	int			n = 0;
	int			removed = 0;
	Store	   *store;

	maintenance_begin();
	store = store_try_open(RowExclusiveLock);
	if (store != NULL)
	{
		n = queue_read_failed(store, GetActiveSnapshot(), before, ids, EXPIRE_BATCH);
		for (int i = 0; i < n; i++)
			removed += ending_expire(store, ids[i], before);
		store_close(store, NoLock);
	}
	maintenance_commit();
	return n == EXPIRE_BATCH && removed > 0;
}

/*
 * Remove tasks that have failed longer ago than they are to be kept, if it is
 * time to look for them.  Return whether there may be more.
 */
bool
maintenance_expire_failed(void)
{
	static TimestampTz looked_at = 0;
	static int	retention = -1;
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	volatile bool more = false;

	if (ts_failed_retention != retention)
		looked_at = 0;
	retention = ts_failed_retention;
	if (retention < 0 || now - looked_at < EXPIRE_INTERVAL)
		return false;

	PG_TRY();
	{
		more = maintenance_expire_batch(now - (int64) retention * USECS_PER_MINUTE);
	}
	PG_CATCH();
	{
		maintenance_do_without(context, "could not remove tasks that have failed long ago");
	}
	PG_END_TRY();
	if (!more)
		looked_at = now;
	return more;
}

/* Mention in the log, once a day, that many tasks have failed. */
void
maintenance_mention_failed(int64 failed)
{
	static TimestampTz mentioned_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (failed <= MANY_FAILED || (mentioned_at != 0 && now - mentioned_at < USECS_PER_DAY))
		return;
	mentioned_at = now;
	ereport(LOG,
			(errmsg("database has " INT64_FORMAT " failed tasks", failed),
			 errhint("Retry or remove them, or set taskshed.failed_retention.")));
}
