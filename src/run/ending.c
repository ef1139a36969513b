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

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "run/run.h"

/*
 * Return whether an end of a run is one to those who run after its task.  A one-off task
 * that runs again, since somebody has changed it or asked for it once more, has not ended.
 */
static bool
ending_counts(Ending ending, const RunEnd *run)
{
	return ending != ENDING_AGAIN &&
		(ending != ENDING_NEXT || run->start->recurring || run->start->extra);
}

static void ending_settle_followers(Store *store, const ParentEnd *end);
static void ending_end_followers(Store *store, List *endings);

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
	if (alarm != NULL && ROW_IS_TRUE(alarm, alarm_followed) && ending_counts(ending, run))
	{
		ParentEnd	end = {.id = run->start->id,.owner = ROW_GET(ObjectId, alarm, alarm_owner),.gone = (ending == ENDING_DONE),
			.status = run->status,.run_at = run->start->scheduled_at,.result = run->result
		};

		/*
		 * (a task whose next time cannot be told has failed, whatever the
		 * run)
		 */
		if (ending == ENDING_FAILED && run->status == RUN_SUCCEEDED)
			end.status = RUN_FAILED;
		if (end.status != RUN_SUCCEEDED && !ROW_ISNULL(alarm, alarm_last_sqlstate))
			end.sqlstate = TextDatumGetCString(ROW_DATUM(alarm, alarm_last_sqlstate));
		if (end.status != RUN_SUCCEEDED && !ROW_ISNULL(alarm, alarm_last_error))
			end.message = TextDatumGetCString(ROW_DATUM(alarm, alarm_last_error));
		ending_settle_followers(store, &end);
	}
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
	if (start->follows)
		edges_delete_all(store, start->id);
	ending_settle(store, NULL, ENDING_DONE, run);
	return true;
}

/* Delete the rows of a task, whose alarm is locked, and what it was to run after. */
static void
ending_delete_rows(Store *store, AlarmRow *alarm, const RowTids *tids)
{
	int64		id = ROW_GET(Int64, alarm, alarm_id);

	store_delete_alarm(store, alarm);
	store_delete_task_at(store, id, tids);
	if (ROW_IS_TRUE(alarm, alarm_follows))
		edges_delete_all(store, id);
}

/* Remove a task that has had its last run. */
void
ending_remove_done(Store *store, AlarmRow *alarm, const RunEnd *run)
{
	ending_delete_rows(store, alarm, &run->start->tids);
	ending_settle(store, alarm, ENDING_DONE, run);
}

/*
 * Remove a task at the wish of somebody, not of a run.  If others run after it, its id is
 * added to a list, so that all that are to go are gone before the others hear of it.
 */
static void
ending_remove_rows(Store *store, AlarmRow *alarm, Ending ending, List **removed)
{
	static const RowTids unknown = {.known = false};

	ending_delete_rows(store, alarm, &unknown);
	ending_settle(store, alarm, ending, NULL);
	if (ROW_IS_TRUE(alarm, alarm_followed))
	{
		int64	   *id = palloc(sizeof(int64));

		*id = ROW_GET(Int64, alarm, alarm_id);
		*removed = lappend(*removed, id);
	}
}

/*
 * Remove a task that somebody wants to be gone, or whose times a change has ended.  The
 * caller calls ending_settle_removed with the list when all are gone that are to go.
 */
void
ending_remove(Store *store, AlarmRow *alarm, List **removed)
{
	ending_remove_rows(store, alarm, ENDING_REMOVED, removed);
}

/*
 * Tell those that are left, and were to run after tasks that were removed.  All hear of that
 * before any of them ends by it, so that it does not depend on the order which do.
 */
void
ending_settle_removed(Store *store, List *removed)
{
	List	   *endings = NIL;
	ListCell   *cell;

	foreach(cell, removed)
	{
		ParentEnd	end = {.id = *(int64 *) lfirst(cell),.removed = true};

		followers_settle(store, &end, &endings);
	}
	ending_end_followers(store, endings);
}

/* The same for a task whose alarm somebody has deleted by hand. */
void
ending_remove_remains(Store *store, TaskRow *task)
{
	ParentEnd	end = {.id = ROW_GET(Int64, task, task_id),.removed = true};

	store_delete_task(store, task);
	edges_delete_all(store, end.id);
	ending_settle(store, NULL, ENDING_REMOVED, NULL);
	ending_settle_followers(store, &end);
}

/*
 * Remove a task that has failed for good before a time.  Return whether that is
 * done; not if somebody is changing it just now, or what runs after it.
 */
bool
ending_expire(Store *store, int64 id, TimestampTz before)
{
	AlarmRow	alarm;
	List	   *removed = NIL;

	if (store_lock_alarm(store, id, &alarm, LockWaitSkip) != TM_Ok ||
		ROW_ISNULL(&alarm, alarm_failed_at) ||
		ROW_GET(TimestampTz, &alarm, alarm_failed_at) >= before ||
		alarm_is_queued(&alarm) || !followers_try_lock(store, &alarm, 2))
		return false;
	ending_remove_rows(store, &alarm, ENDING_EXPIRED, &removed);
	ending_settle_removed(store, removed);
	return true;
}

/*
 * Skip a task, since what it waits for cannot come any more: a one-off task goes, a lasting
 * one waits for the next round.  Those that run after it are told.
 */
static void
ending_skip(Store *store, AlarmRow *alarm, TaskRow *task, List **endings)
{
	RunStart	start;
	RunEnd		run = {.start = &start,.status = RUN_SKIPPED};
	ParentEnd	end = {.id = ROW_GET(Int64, alarm, alarm_id),.owner = ROW_GET(ObjectId, alarm, alarm_owner),
	.status = RUN_SKIPPED};
	NextRound	round = ROUND_OVER;
	char	   *lost;

	Assert(!ROW_ISNULL(alarm, alarm_waiting_since));
	run_start_read(&start, task, alarm, GetCurrentTimestamp());
	start.worker_pid = 0;
	if (start.extra)
		start.scheduled_at = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
	start.by_hand = false;
	if (start.lasting)
	{
		/* it would have been for that time */
		TimestampTz latest = waiting_latest(store, start.id, DT_NOBEGIN);

		if (latest != DT_NOBEGIN)
			start.scheduled_at = latest;
	}
	run.run_id = history_record(&run);
	last_run_set(alarm, RUN_SKIPPED, NULL, NULL);
	if (start.lasting)
		round = followers_next_round(store, alarm, &lost);
	end.gone = (round == ROUND_OVER || round == ROUND_LOST);
	end.run_at = start.scheduled_at;
	if (end.gone)
		ending_delete_rows(store, alarm, &start.tids);
	else
		store_update_alarm(store, alarm);
	notice_settle(alarm, end.gone ? ENDING_DONE : ENDING_NEXT, &run);
	if (start.followed)
		followers_settle(store, &end, endings);
	if (!end.gone && round == ROUND_BEGUN)
	{
		FollowerEnd *again = palloc0(sizeof(FollowerEnd));

		again->id = end.id;
		again->all = true;
		*endings = lappend(*endings, again);
	}
}

/* Have a task fail, since one that it was to run after was removed. */
static void
ending_lose(Store *store, AlarmRow *alarm, TaskRow *task, const char *lost)
{
	RunStart	start;
	ErrorData	error = {.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE};
	RunEnd		run = {.start = &start,.status = RUN_FAILED,.error = &error,.unstarted = true};
	Failure		failure;

	error.message = psprintf("task \"%s\", which it was to run after, was removed", lost);
	error.hint = "taskshed.retry_task() runs it nevertheless.";
	run_start_read(&start, task, alarm, GetCurrentTimestamp());
	start.worker_pid = 0;
	run.run_id = history_record(&run);
	failure = failure_found(&start, RUN_FAILED, &error);
	failure_log(&start, &failure, alarm);
	last_run_note(alarm, &run);
	ROW_SET_NULL(alarm, alarm_waiting_since);
	ROW_SET_NULL(alarm, alarm_settled_from);
	ending_fail(store, alarm, &run);
}

/*
 * The same for a task whose run has ended, and which waits; one that it was to run after was
 * removed while it ran.
 */
void
ending_lost(Store *store, int64 id, const char *lost)
{
	AlarmRow	alarm;
	TaskRow		task;

	CommandCounterIncrement();
	if (alarm_lock(store, id, NULL, &alarm, false) == TM_Ok && store_get_task(store, id, &task))
		ending_lose(store, &alarm, &task, lost);
}

/* Consider a task that waits, and leave nothing of that in memory; whether it is skipped. */
static bool
ending_considers(Store *store, AlarmRow *alarm, const TaskRow *task, bool all)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "taskshed follower",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		skipped = waiting_consider(store, alarm, task, all);

	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return skipped;
}

/* End those on a list that end since what they run after has; the list may grow meanwhile. */
static void
ending_end_followers(Store *store, List *endings)
{
	for (int i = 0; i < list_length(endings); i++)
	{
		FollowerEnd *ending = list_nth(endings, i);
		AlarmRow	alarm;
		TaskRow		task;

		CHECK_FOR_INTERRUPTS();
		if (alarm_lock(store, ending->id, NULL, &alarm, false) != TM_Ok ||
			!store_get_task(store, ending->id, &task))
			continue;
		if (ending->lost != NULL)
			ending_lose(store, &alarm, &task, ending->lost);
		else if (ROW_ISNULL(&alarm, alarm_waiting_since))
			continue;			/* something else has become of it */
		else if (ending->skipped)
			ending_skip(store, &alarm, &task, &endings);
		else if (ending_considers(store, &alarm, &task, ending->all))
		{
			/* its alarm may have been written: lock it again */
			ending->skipped = true;
			i--;
		}
		CommandCounterIncrement();
	}
}

/* Tell those that run after a task of its end, and end those that end by that. */
static void
ending_settle_followers(Store *store, const ParentEnd *end)
{
	List	   *endings = NIL;

	followers_settle(store, end, &endings);
	ending_end_followers(store, endings);
}

/*
 * Consider a task that may wait for others, and whose edges were just written: it may be due,
 * or to be skipped.
 */
void
ending_consider(Store *store, int64 id)
{
	FollowerEnd *ending = palloc0(sizeof(FollowerEnd));

	ending->id = id;
	ending->all = true;
	CommandCounterIncrement();
	ending_end_followers(store, list_make1(ending));
}

/*
 * Consider the lasting tasks that run after one which has another time by now, or waits for
 * other tasks, and whose alarm is written: they may have waited for what does not come.
 */
void
ending_moved(Store *store, const AlarmRow *alarm)
{
	int64	   *children;
	int			n;

	if (!ROW_IS_TRUE(alarm, alarm_followed))
		return;
	CommandCounterIncrement();
	children = edges_children(store, ROW_GET(Int64, alarm, alarm_id), &n);
	for (int i = 0; i < n; i++)
	{
		AlarmRow	child;
		TaskRow		task;

		CHECK_FOR_INTERRUPTS();
		if (store_get_alarm(store, children[i], &child) && !ROW_ISNULL(&child, alarm_waiting_since) &&
			store_get_task(store, children[i], &task) && task_is_lasting(&task))
			ending_consider(store, children[i]);
	}
	pfree(children);
}
