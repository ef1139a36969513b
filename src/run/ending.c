/*-------------------------------------------------------------------------
 *
 * ending.c
 *		The end of a run, and the end of a task.
 *
 * Each end of a run and each end of a task goes through here: nothing else
 * deletes the rows of a task or has it stay as failed, which "make lint" sees
 * to.  So what has to happen at an end, whatever it was, is done in one place,
 * ending_settle.
 *
 * What is asked of the callers:
 *
 *	- One of these functions is called, once, for each end.  (A run whose task was
 *	  removed meanwhile, or dropped with the extension, finds nothing to end: that
 *	  was the end.)  What has become
 *	  of the run is in the history already, and in the alarm all but what is
 *	  written here.
 *	- A transaction is in progress and has an active snapshot.
 *	- The task's alarm is locked, and its revision was compared: a run ends only
 *	  what it has begun.  Nothing is locked if ending_try_remove is called: the
 *	  row goes only if it is the one that the run has read.
 *	- Who ends several tasks at once has locked their alarms in the order of
 *	  their owners and task_ids, or has not waited for any.
 *	- The scheduler is told by the caller: by the run's report, or by notes.
 *
 * An error is raised here only if the server cannot do what it is asked to, for
 * want of disk space, say.  Nothing raises one for what is in a task's rows, or
 * what its owner has said or done: in the transaction that records a failure,
 * that would have the task run for ever.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "run/run.h"

/*
 * Do what follows from an end, whose rows are written.  run is the run that has come
 * to it, NULL if it was none; alarm what it has left, NULL if nobody needs that: the
 * task is done, and has succeeded.
 */
static inline void
ending_settle(Store *store, const AlarmRow *alarm, Ending ending, const RunEnd *run)
{
	Assert(ActiveSnapshotSet());
	Assert((run == NULL) == (ending == ENDING_REMOVED || ending == ENDING_EXPIRED));
	if (run == NULL)
		return;
	if (alarm != NULL &&
		(run->status != RUN_SUCCEEDED || run->recovered || ending == ENDING_FAILED))
		on_failure_settle(store, alarm, ending, run);
	if (run->status != RUN_SUCCEEDED || ending == ENDING_FAILED ||
		!ROW_ISNULL(run->start->task, task_notify))
		notice_settle(alarm, ending, run);
}

/* Write the alarm of a task that goes on after a run: ENDING_AGAIN or ENDING_NEXT. */
void
ending_go_on(Store *store, AlarmRow *alarm, Ending ending, const RunEnd *run)
{
	Assert(ending == ENDING_AGAIN || ending == ENDING_NEXT);
	store_update_alarm(store, alarm);
	ending_settle(store, alarm, ending, run);
}

/* Have a task stay as failed. */
void
ending_fail(Store *store, AlarmRow *alarm, const RunEnd *run)
{
	ROW_SET(TimestampTz, alarm, alarm_failed_at, GetCurrentTimestamp());
	store_update_alarm(store, alarm);
	ending_settle(store, alarm, ENDING_FAILED, run);
}

/*
 * Remove a one-off task that has succeeded if nobody has changed it since its run
 * has begun, its revision neither.  Return whether it was so.
 */
bool
ending_try_remove(Store *store, const RunEnd *run)
{
	const RunStart *start = run->start;

	if (!store_try_delete_alarm_at(store, start->id, &start->tids))
		return false;
	store_delete_task_at(store, start->id, &start->tids);
	ending_settle(store, NULL, ENDING_DONE, run);
	return true;
}

/* Remove a task that has had its last run. */
void
ending_remove_done(Store *store, AlarmRow *alarm, const RunEnd *run)
{
	store_delete_alarm(store, alarm);
	store_delete_task_at(store, run->start->id, &run->start->tids);
	ending_settle(store, alarm, ENDING_DONE, run);
}

/* Remove a task at the wish of somebody, not of a run. */
static void
ending_remove_rows(Store *store, AlarmRow *alarm, Ending ending)
{
	int64		id = ROW_GET(Int64, alarm, alarm_id);
	TaskRow		task;

	store_delete_alarm(store, alarm);
	if (store_get_task(store, id, &task))
		store_delete_task(store, &task);
	ending_settle(store, alarm, ending, NULL);
}

/* Remove a task that somebody wants to be gone, or whose times a change has ended. */
void
ending_remove(Store *store, AlarmRow *alarm)
{
	ending_remove_rows(store, alarm, ENDING_REMOVED);
}

/* The same for a task whose alarm somebody has deleted by hand. */
void
ending_remove_remains(Store *store, TaskRow *task)
{
	store_delete_task(store, task);
	ending_settle(store, NULL, ENDING_REMOVED, NULL);
}

/*
 * Remove a task that has failed for good before a time.  Return whether that is
 * done; not if somebody is changing it just now.
 */
bool
ending_expire(Store *store, int64 id, TimestampTz before)
{
	AlarmRow	alarm;

	if (store_lock_alarm(store, id, &alarm, LockWaitSkip) != TM_Ok ||
		ROW_ISNULL(&alarm, alarm_failed_at) ||
		ROW_GET(TimestampTz, &alarm, alarm_failed_at) >= before ||
		alarm_is_queued(&alarm))
		return false;
	ending_remove_rows(store, &alarm, ENDING_EXPIRED);
	return true;
}
