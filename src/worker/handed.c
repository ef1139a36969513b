/*-------------------------------------------------------------------------
 *
 * handed.c
 *		Taking tasks from the worker's slot, and leaving reports there.
 *
 * Tasks are taken in the order in which the scheduler has put them there.  One may
 * come a little ahead of its time, and is waited for.  The scheduler is woken when
 * it has something to do: a task that is due again before the scheduler's alarm, a
 * task that must be looked at, or a queue that is running short while more is due.
 * Other reports can wait until it wakes by itself, or the worker has been idle for a
 * moment.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "worker/worker.h"

/* The scheduler is asked for more when this many tasks are left. */
#define HANDED_LOW	(TS_HANDED / 2)

/* A run counts for no more than this (us), so that it is forgotten after some forty. */
#define HANDED_LONGEST	(50000 * TS_SLOWER)

/*
 * Return whether a task was handed out ahead of its time, to be waited for.  If its
 * time is further off than it can have been then, the clock was set back, and the
 * scheduler should have the task again.
 */
static bool
handed_is_ahead(const TsHanded *handed, TimestampTz now)
{
	return handed->run_at > now && handed->run_at - now <= TS_HAND_FAR_AHEAD;
}

/*
 * Return the next of the tasks that were handed out, or NULL: the oldest, or if that
 * is ahead of its time the one that is due first.  The caller has the slot's mutex.
 */
static TsHanded *
handed_first(TimestampTz now)
{
	TsWorker   *worker = ts_my_worker;
	TsHanded   *first = &worker->handed[worker->handed_head % TS_HANDED];

	if (worker->handed_head == worker->handed_tail)
		return NULL;
	for (uint32 i = worker->handed_head; handed_is_ahead(first, now) && i != worker->handed_tail; i++)
	{
		TsHanded   *other = &worker->handed[i % TS_HANDED];

		if (other->run_at < first->run_at)
		{
			TsHanded	swap = *first;

			*first = *other;
			*other = swap;
		}
	}
	return first;
}

/* Have a task be the run in progress.  The caller has the slot's mutex. */
static void
handed_begin(int64 id, TimestampTz now)
{
	TsWorker   *worker = ts_my_worker;

	worker->running_id = id;
	worker->running_revision = 0;
	worker->running_since = now;
	worker->ending = false;
	worker->serial++;
	if (worker->serial == 0)
		worker->serial++;
}

/* Leave reports on runs that are over.  The caller has the slot's mutex. */
static void
handed_leave_reports(const TsReport *reports, int nreports)
{
	TsWorker   *worker = ts_my_worker;

	Assert(worker->reports_tail - worker->reports_head + nreports <= TS_REPORTS);
	for (int i = 0; i < nreports; i++)
		worker->reports[worker->reports_tail++ % TS_REPORTS] = reports[i];
}

/*
 * Wake the scheduler if there is something to do for it: because of what was
 * reported, or since no more than left of the tasks that were handed out are left.
 * One that is awake may have looked already, and is to look again.
 */
static void
handed_wake_scheduler(const TsReport *reports, int nreports, uint32 left)
{
	bool		low = (nreports > 0 && left == 0) ||
	(left <= HANDED_LOW && left + nreports > HANDED_LOW);
	bool		wake = false;
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < nreports; i++)
	{
		wake = wake || reports[i].fate == TS_FATE_LOOK;
		if (reports[i].fate == TS_FATE_NEXT)
			next = Min(next, reports[i].next_run_at);
	}
	if (!wake && nreports > 0)
	{
		SpinLockAcquire(&ts_my_database->mutex);
		wake = ts_my_database->expects_report || next < ts_my_database->alarm ||
			((low || next != DT_NOEND) && ts_my_database->alarm == DT_NOBEGIN) ||
			(low && ts_my_database->hungry);
		SpinLockRelease(&ts_my_database->mutex);
	}
	if (wake)
		database_wake_scheduler(ts_my_database);
}

/*
 * Learn how long the worker's runs take.  One that is longer counts at once, so that it
 * takes a while until the next ones are relied on.  The caller has the slot's mutex.
 */
static void
handed_learn(TimestampTz now)
{
	TsWorker   *worker = ts_my_worker;
	int64		took = Min(Max(now - worker->running_since, 1), HANDED_LONGEST);

	worker->typical = Max(took, (worker->typical * 7 + took) / 8);
}

/*
 * Leave the reports on the run that is over, and on those that were in its
 * transaction, and take the next task.  Return false if there is none, none is due,
 * or if the worker is to leave; wait_for says until when to wait.  ahead is whether
 * there are others behind it whose times are to come.
 */
bool
handed_next(const TsReport *reports, int nreports, TsHanded *task, TimestampTz *wait_for,
			bool *ahead)
{
	TsWorker   *worker = ts_my_worker;
	TimestampTz now = GetCurrentTimestamp();
	uint32		left;
	bool		found = false;
	TsHanded   *first;

	*wait_for = DT_NOEND;
	*ahead = false;
	SpinLockAcquire(&worker->mutex);
	handed_leave_reports(reports, nreports);
	if (worker->running_id != 0)
		handed_learn(now);
	worker->running_id = 0;
	worker->nmembers = 0;
	left = worker->handed_tail - worker->handed_head;
	first = handed_first(now);
	if (first != NULL && handed_is_ahead(first, now))
		*wait_for = first->run_at;
	else if (first != NULL && !worker->retire)
	{
		*task = *first;
		worker->handed_head++;
		handed_begin(task->id, now);
		found = true;
		*ahead = (worker->handed_head != worker->handed_tail &&
				  handed_is_ahead(&worker->handed[(worker->handed_tail - 1) % TS_HANDED], now));
	}
	SpinLockRelease(&worker->mutex);

	handed_wake_scheduler(reports, nreports, left);
	if (found)
		ts_debug(DEBUG2, "worker takes task " INT64_FORMAT, task->id);
	return found;
}

/*
 * Return whether there is one more task that was due at some time, and which: one that
 * can be taken into the transaction of the run in progress.
 */
bool
handed_look(TimestampTz due, TimestampTz now, TsHanded *task)
{
	TsWorker   *worker = ts_my_worker;
	TsHanded   *first;
	bool		found;

	SpinLockAcquire(&worker->mutex);
	first = handed_first(now);
	found = (first != NULL && first->run_at <= due && !worker->retire &&
			 worker->nmembers < TS_MAX_TASKS_PER_COMMIT - 1);
	if (found)
		*task = *first;
	SpinLockRelease(&worker->mutex);
	return found;
}

/*
 * Take that task.  The run in progress is done.  Return false if it is not there any
 * more: the scheduler has given it to somebody else.
 */
bool
handed_take(int64 id, TimestampTz now)
{
	TsWorker   *worker = ts_my_worker;
	bool		found;

	SpinLockAcquire(&worker->mutex);
	found = (worker->handed_head != worker->handed_tail &&
			 worker->handed[worker->handed_head % TS_HANDED].id == id);
	if (found)
	{
		worker->handed_head++;
		worker->members[worker->nmembers++] = (TsMember)
		{
			worker->running_id, worker->running_since
		};
		handed_begin(id, now);
	}
	SpinLockRelease(&worker->mutex);
	return found;
}

/*
 * Give all tasks back to the scheduler but one, which is to be the run in progress:
 * those of a transaction that was rolled back, with these reports, and those that were
 * not taken yet.
 */
void
handed_give_back(const TsReport *reports, int nreports, int64 running_id)
{
	TsWorker   *worker = ts_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&worker->mutex);
	handed_leave_reports(reports, nreports);
	while (worker->handed_head != worker->handed_tail)
	{
		TsReport	report = {
			.id = worker->handed[worker->handed_head++ % TS_HANDED].id,
			.fate = TS_FATE_LOOK
		};

		handed_leave_reports(&report, 1);
	}
	worker->nmembers = 0;
	handed_begin(running_id, now);
	SpinLockRelease(&worker->mutex);
	database_wake_scheduler(ts_my_database);
}

/* Return whether there are reports that the scheduler has not collected. */
bool
handed_has_reports(void)
{
	TsWorker   *worker = ts_my_worker;
	bool		has_reports;

	SpinLockAcquire(&worker->mutex);
	has_reports = (worker->reports_head != worker->reports_tail);
	SpinLockRelease(&worker->mutex);
	return has_reports;
}
