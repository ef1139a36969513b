/*-------------------------------------------------------------------------
 *
 * late_from.c
 *		From when it counts how late a task is.
 *
 * A run is late, which start_within and catch_up bound, from the time on that it
 * is for.  But if somebody gives a task that time only when it has come, by not
 * saying when, or has a time begin anew that has been tried, then it is late from
 * that call on.  And since nobody can start it before the commit, what the
 * transaction still takes does not count: the time of the commit is not known when
 * the row is written, so it is written once more just before it, or before the
 * PREPARE.  That is not worth it for a transaction that is over in a moment.
 *
 * What has begun is not late any more, which is written as infinity.
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

#include "commit/commit.h"

/* What took less than this (us) is let pass. */
#define A_MOMENT	(5 * INT64CONST(1000))

/* An alarm that this transaction has written. */
typedef struct Written
{
	int64		id;
	TimestampTz late_from;
} Written;

/* In the memory of the transaction; those of savepoints rolled back as well. */
static Written *written = NULL;
static int	nwritten = 0;
static int	max_written = 0;

/*
 * Have the lateness of a task count from this transaction's commit.  The caller
 * writes the alarm.
 */
void
late_from_commit(AlarmRow *alarm)
{
	TimestampTz now = GetCurrentTimestamp();

	ROW_SET(TimestampTz, alarm, alarm_late_from, now);
	if (nwritten == max_written)
	{
		max_written = Max(16, 2 * max_written);
		written = written == NULL ?
			MemoryContextAllocHuge(TopTransactionContext, max_written * sizeof(Written)) :
			repalloc_huge(written, max_written * sizeof(Written));
	}
	written[nwritten].id = ROW_GET(Int64, alarm, alarm_id);
	written[nwritten].late_from = now;
	nwritten++;
}

/* Return whether an alarm is as this transaction has written it. */
static bool
late_from_is_ours(const AlarmRow *alarm, TimestampTz late_from)
{
	return !ROW_ISNULL(alarm, alarm_late_from) &&
		ROW_GET(TimestampTz, alarm, alarm_late_from) == late_from;
}

/*
 * Write all of them once more.  What has gone with a savepoint may be somebody
 * else's by now: that is left alone, and nobody is waited for.
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
	for (int i = 0; store != NULL && i < nwritten; i++)
	{
		int64		id = written[i].id;
		TimestampTz late_from = written[i].late_from;
		AlarmRow	alarm;

		if (now - late_from <= A_MOMENT)
			continue;

		/* what this command has written cannot be locked */
		CommandCounterIncrement();
		if (store_get_alarm(store, id, &alarm) && late_from_is_ours(&alarm, late_from) &&
			store_lock_alarm(store, id, &alarm, LockWaitSkip) == TM_Ok &&
			late_from_is_ours(&alarm, late_from))
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
	if (nwritten > 0 && (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		late_from_write();
	if (event != XACT_EVENT_PRE_PREPARE)
	{
		written = NULL;
		nwritten = max_written = 0;
	}
}

/* Set the callback: once a process, and only with shared memory. */
void
late_from_init(void)
{
	RegisterXactCallback(late_from_xact_callback, NULL);
}
