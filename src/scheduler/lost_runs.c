/*-------------------------------------------------------------------------
 *
 * lost_runs.c
 *		Runs that have lost their workers.
 *
 * A worker that ends in the midst of a run has left nothing of it: neither the
 * effects of the callback nor what became of the task.  The scheduler finds that
 * out, from the worker's slot, or from what a crash of the server has left there,
 * and writes it down: an interruption, in the task's row and the history.  Only
 * then the task is looked up again, since that decides whether it runs again.
 *
 * Somebody may be changing the task just then, or the disk be full, so a loss is
 * kept until what was written is committed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* Runs that have lost their workers, to be written down. */
typedef struct Loss
{
	int64		id;
	LostRun		run;
	bool		written;		/* once this transaction has committed */
	bool		look;			/* the task is to be looked up then */
	TimestampTz not_before;
} Loss;

static List *losses = NIL;

/* Keep in mind that a run has lost its worker, which is to be written down. */
void
lost_runs_add(int64 id, const LostRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Loss	   *loss = palloc0(sizeof(Loss));

	loss->id = id;
	loss->run = *run;
	losses = lappend(losses, loss);
	MemoryContextSwitchTo(old);
}

/* Keep in mind what was running in a database when the server died. */
void
lost_runs_add_crashed(Oid database)
{
	Suspect		suspect;

	while (crash_record_take(database, &suspect))
	{
		LostRun		lost = {
			.revision = suspect.revision,
			.scheduled_at = suspect.scheduled_at,
			.started_at = suspect.started_at,
			.attempt = suspect.attempt,
			.slot = -1,
			.owner = suspect.owner,
			.crashed = !suspect.blameless,
			.bystander = suspect.blameless,
			.worker_pid = suspect.worker_pid
		};

		lost_runs_add(suspect.id, &lost);
	}
}

/* Return whether there are lost runs that are to be written down. */
bool
lost_runs_exist(void)
{
	return losses != NIL;
}

/*
 * Return how many runs of a task were interrupted in a row, as its row has it.
 */
static int
lost_runs_count_interruptions(Store *store, int64 id)
{
	AlarmRow	alarm;

	return store_get_alarm(store, id, &alarm) ? ROW_GET(Int32, &alarm, alarm_interruptions) : 0;
}

/*
 * Mark, of the runs that a crash of the server has cut off, those that had
 * been running for a while, if there is one that had not and is as suspect as
 * they are.  So a long run is not taken for the culprit because another task
 * brings the server down again and again; and a culprit that runs for long
 * before it does is not spared because of others that have just begun.
 */
static void
lost_runs_find_bystanders(Store *store)
{
	TimestampTz youngest = DT_NOBEGIN;
	int			suspicion = -1;
	ListCell   *lc;

	foreach(lc, losses)
	{
		Loss	   *loss = lfirst(lc);

		if (loss->run.crashed)
			youngest = Max(youngest, loss->run.started_at);
	}
	if (youngest == DT_NOBEGIN)
		return;
	foreach(lc, losses)
	{
		Loss	   *loss = lfirst(lc);

		if (loss->run.crashed && youngest - loss->run.started_at < TS_SUSPECT_WATCH)
			suspicion = Max(suspicion, lost_runs_count_interruptions(store, loss->id));
	}
	foreach(lc, losses)
	{
		Loss	   *loss = lfirst(lc);

		if (loss->run.crashed && youngest - loss->run.started_at >= TS_SUSPECT_WATCH &&
			lost_runs_count_interruptions(store, loss->id) <= suspicion)
			loss->run.bystander = true;
	}
}

/*
 * Write down what happened to runs that have lost their workers.  Return
 * whether some must wait for others who are changing the task.
 */
bool
lost_runs_write(Store *store)
{
	ListCell   *lc;
	bool		wait = false;

	lost_runs_find_bystanders(store);
	foreach(lc, losses)
	{
		Loss	   *loss = lfirst(lc);
		bool		again;
		int			interruptions;

		loss->look = cut_off_record(store, loss->id, &loss->run, &again, &interruptions) &&
			!again;
		loss->not_before = DT_NOBEGIN;
		if (interruptions > 1)
			loss->not_before = GetCurrentTimestamp() + process_backoff(interruptions - 2);
		loss->written = !again;
		loss->run.crashed = false;	/* who is a bystander is decided once */
		wait = wait || again;
	}
	return wait;
}

/*
 * Look the tasks up again of which that has been committed: at once the first
 * time, later and later when it happens again.
 */
void
lost_runs_written(void)
{
	ListCell   *lc;

	foreach(lc, losses)
	{
		Loss	   *loss = lfirst(lc);

		if (!loss->written)
			continue;
		ts_debug(DEBUG1, "task " INT64_FORMAT " has lost its worker %d", loss->id, loss->run.worker_pid);
		if (loss->look && loss->not_before != DT_NOBEGIN)
			ts_debug(DEBUG1, "task " INT64_FORMAT " is put off until %s: it was interrupted again",
					 loss->id, timestamptz_to_str(loss->not_before));
		if (loss->look)
			lookahead_look_later(loss->id, loss->not_before);
		crash_record_forget(loss->run.slot, loss->id);
		losses = foreach_delete_current(losses, lc);
		pfree(loss);
	}
}
