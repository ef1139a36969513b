/*-------------------------------------------------------------------------
 *
 * handed.c
 *		Taking tasks from the worker's slot, and leaving reports there.
 *
 * Tasks are taken in the order in which the scheduler has put them there.  One may
 * come a little ahead of its time, and is waited for.  The scheduler is woken when
 * it has something to do: a task that is due again before the scheduler's alarm, a
 * task that must be looked at, or a queue that is running short.
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

/*
 * Return whether a task was handed out ahead of its time, to be waited for.  If its
 * time is further off than it can have been then, the clock was set back, and the
 * scheduler should have the task again.
 */
static bool
handed_is_ahead(const TsHanded *handed, TimestampTz now)
{
	return handed->run_at > now && handed->run_at - now <= TS_HAND_AHEAD;
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

/*
 * Leave the report on a task, if there is one, and take the next.  Return false if
 * there is none, none is due, or if the worker is to leave; wait_for says until when
 * to wait.
 */
bool
handed_next(const TsReport *report, TsHanded *task, TimestampTz *wait_for)
{
	TsWorker   *worker = ts_my_worker;
	TimestampTz now = GetCurrentTimestamp();
	uint32		left;
	bool		wake = false;
	bool		found = false;
	TsHanded   *first;

	*wait_for = DT_NOEND;
	SpinLockAcquire(&worker->mutex);
	if (report != NULL)
	{
		Assert(worker->reports_tail - worker->reports_head < TS_REPORTS);
		worker->reports[worker->reports_tail++ % TS_REPORTS] = *report;
	}
	worker->running_id = 0;
	left = worker->handed_tail - worker->handed_head;
	first = handed_first(now);
	if (first != NULL && handed_is_ahead(first, now))
		*wait_for = first->run_at;
	else if (first != NULL && !worker->retire)
	{
		*task = *first;
		worker->handed_head++;
		worker->running_id = task->id;
		worker->running_revision = 0;
		worker->running_since = now;
		worker->ending = false;
		worker->serial++;
		if (worker->serial == 0)
			worker->serial++;
		found = true;
	}
	SpinLockRelease(&worker->mutex);

	/* has the scheduler something to do? */
	if (report != NULL)
	{
		wake = (report->fate == TS_FATE_LOOK || left == HANDED_LOW || left == 0);
		if (!wake && report->fate == TS_FATE_NEXT)
		{
			SpinLockAcquire(&ts_my_database->mutex);
			wake = (report->next_run_at < ts_my_database->alarm);
			SpinLockRelease(&ts_my_database->mutex);
		}
	}
	if (wake)
		database_wake_scheduler(ts_my_database);
	if (found)
		ts_debug(DEBUG2, "worker takes task " INT64_FORMAT, task->id);
	return found;
}
