/*-------------------------------------------------------------------------
 *
 * late_from.c
 *		What a transaction takes makes no task late that it has scheduled for
 *		now.
 *
 * A task that was given no time is due at the call, but nobody can start it
 * before the commit.  How late it is, which start_within and catch_up bound,
 * must not count that.  The time of the commit is not known when the row is
 * written; so just before the commit, or the PREPARE, it is written once more.
 * That is not worth it for a transaction that is over in a moment.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "taskshed.h"

/* What took less than this part of start_within is let pass. */
#define SHORT_PART	100

/* A task that this transaction has scheduled for now. */
typedef struct Scheduled
{
	int64		id;
	TimestampTz scheduled_at;
	int64		start_within;	/* us */
} Scheduled;

/* In the memory of the transaction; those of savepoints rolled back as well. */
static Scheduled *scheduled = NULL;
static int	nscheduled = 0;
static int	max_scheduled = 0;

/*
 * Remember that a task was scheduled for the time of the call, or the first
 * after it.  start_within, in microseconds, says how late it may be.
 */
void
late_from_commit(int64 id, TimestampTz scheduled_at, int64 start_within)
{
	if (nscheduled == max_scheduled)
	{
		max_scheduled = Max(16, 2 * max_scheduled);
		scheduled = scheduled == NULL ?
			MemoryContextAllocHuge(TopTransactionContext, max_scheduled * sizeof(Scheduled)) :
			repalloc_huge(scheduled, max_scheduled * sizeof(Scheduled));
	}
	scheduled[nscheduled].id = id;
	scheduled[nscheduled].scheduled_at = scheduled_at;
	scheduled[nscheduled].start_within = start_within;
	nscheduled++;
}

/*
 * Have the lateness of what was scheduled count from now on.  What has gone with
 * a savepoint, or was moved, is left alone.
 */
static void
late_from_write(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Store	   *store = store_try_open(RowExclusiveLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed late_from",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; store != NULL && i < nscheduled; i++)
	{
		const Scheduled *task = &scheduled[i];
		AlarmRow	alarm;

		if (now - task->scheduled_at <= task->start_within / SHORT_PART)
			continue;

		/* what this command has written cannot be locked */
		CommandCounterIncrement();
		if (store_lock_alarm(store, task->id, &alarm, LockWaitBlock) == TM_Ok &&
			ROW_GET(TimestampTz, &alarm, alarm_scheduled_at) == task->scheduled_at)
		{
			ROW_SET(TimestampTz, &alarm, alarm_late_from, now);
			store_update_alarm(store, &alarm);
		}
		MemoryContextReset(context);
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	if (store != NULL)
		store_close(store, NoLock);
	MemoryContextDelete(context);
}

static void
late_from_xact_callback(XactEvent event, void *arg)
{
	if (nscheduled > 0 && (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		late_from_write();
	if (event != XACT_EVENT_PRE_PREPARE)
	{
		scheduled = NULL;
		nscheduled = max_scheduled = 0;
	}
}

/* Once a process, and only with shared memory. */
void
late_from_init(void)
{
	RegisterXactCallback(late_from_xact_callback, NULL);
}
