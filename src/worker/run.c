/*-------------------------------------------------------------------------
 *
 * run.c
 *		One run of a task, in one transaction.
 *
 * The transaction reads the task afresh, calls the callback at its top level,
 * finishes all user code that it still holds, writes the outcome and commits:
 * the callback's effects and the task's own rows become one commit record.
 * No lock on our tables or rows is held while user code runs.
 *
 * Whatever the role has set for its sessions applies around the callback and
 * nowhere else: the outcome is written in a transaction that may write, with
 * no lock_timeout, by code that looks at no setting.
 *
 * If anything fails, at commit too, the transaction is rolled back and a
 * second one records the failure, if the task still is what it was.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

/*
 * How often a run that lost a deadlock or the like is tried again at once,
 * before that counts as its failure.
 */
#define CONFLICT_RETRIES	5

/*
 * Write the outcome of a run, and run others in its transaction.  The tables stay open
 * meanwhile: who must have them alone, a callback or somebody else, waits for the
 * commit, or has the transaction fail.
 */
static void
run_write_outcomes(Run *run, Batch *batch)
{
	history_collect();
	run_write_outcome(run, true);
	if (run->store != NULL)
	{
		batch_extend(batch, run);
		store_close(run->store, NoLock);
		run->store = NULL;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	history_write();
	PopActiveSnapshot();
}

/*
 * Try a run once, from beginning to end, and others in its transaction if there is a
 * batch.  Any error is left to the caller to record.
 */
static void
run_attempt(Run *run, Batch *batch)
{
	Callback   *callback;
	bool		may_begin = false;
	bool		sets;

	/*
	 * all that is left of a procedure's run is its outcome, which has lost a
	 * race
	 */
	if (run->committed)
	{
		run->started = true;
		transaction_begin();
		PopActiveSnapshot();
		run_write_outcome(run, false);
		CommitTransactionCommand();
		transaction_leave_bookkeeping();
		return;
	}

	/* read the task */
	run->pin = NULL;
	transaction_begin();
	if (!run_read(run))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return;
	}
	run_show(run);
	sets = (!run->missed && !ROW_ISNULL(&run->task, task_settings));
	if (IsolationUsesXactSnapshot() || sets)
	{
		/* what the callback sees must not be older than what was read */
		run->start.tids.known = false;
		batch = NULL;
		PopActiveSnapshot();
		CommitTransactionCommand();
		if (sets)
			run_set(run);
		transaction_begin();
	}

	/* call it */
	if (run->missed)
	{
		run->start.tids.known = false;
		PopActiveSnapshot();
	}
	else if ((callback = run_prepare(run)) != NULL)
	{
		batch_must_end = false;
		callback_hold(callback);	/* until the run ends, if there is an
									 * error */
		run_call(run, callback);
		if (ts_tasks_per_commit > 1)
			batch_learn(callback, GetCurrentTimestamp() - run->start.started_at);
		may_begin = (batch != NULL && batch_may_begin(run, callback));
		callback_release(callback);
	}
	else
	{
		run->started = false;
		return;
	}

	/* write the outcome, and perhaps others' */
	if (may_begin)
		run_write_outcomes(run, batch);
	else
		run_write_outcome(run, false);
	if (run->pin != NULL)
		UnregisterSnapshotFromOwner(run->pin, TopTransactionResourceOwner);
	CommitTransactionCommand();
	transaction_leave_bookkeeping();
}

/*
 * Run a task, if it is due, fill in what became of it, and put the session
 * back as new.  The task is one of the role that this process is connected as.
 * The current memory context is the run's; the caller resets it.  Return how the
 * run has ended; RUN_NONE if it was not to run.
 *
 * If there is a batch, it may get other runs in the same transaction, whose ends are
 * then there; or which are to be run again, each by itself.
 */
RunStatus
run_task(const TsHanded *task, TsReport *report, Batch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	Run			run = {.id = task->id,.alarm_tid = task->alarm_tid,.report = report,.context = context,
	.begun_for = DT_NOBEGIN};
	ErrorData  *volatile error = NULL;
	Batch	   *volatile shared = batch;	/* NULL when it has failed */
	volatile int tries = 0;
	volatile bool again;
	volatile bool committed = false;
	volatile uint64 generation = 0;

	transaction_save_surroundings(&run.before);
	run.lock_timeout = run.before.lock_timeout;
	QueryCancelPending = false;
	do
	{
		again = false;
		run.store = NULL;
		run.called = false;
		run.binding = NULL;
		generation = callback_generation();
		error = NULL;
		PG_TRY();
		{
			ts_my_worker->ending = false;
			if (tries > 0)
				run_failure_step_aside(tries);
			run.started = false;
			run_attempt(&run, shared);
		}
		PG_CATCH();
		{
			/* not undone by the rollback: what a procedure has committed */
			committed = (run.called && transaction_count() != run.transactions);
			error = transaction_roll_back(context);
			history_discard();
		}
		PG_END_TRY();
		transaction_restore_surroundings(&run.before);

		if (error != NULL && shared != NULL && shared->extending)
		{
			batch_fall_apart(shared, task->id, error);
			transaction_restore_surroundings(&run.before);
			session_reset(false);
			shared = NULL;
			again = true;
		}
		else if (error != NULL && (!committed || run.committed) && tries < CONFLICT_RETRIES &&
				 run_failure_lost_race(error, generation))
		{
			session_reset(false);
			again = true;
			tries++;
		}
		MemoryContextSwitchTo(context);
	} while (again);

	if (error != NULL)
	{
		/* not even read: whatever is wrong is not the task's fault */
		if (!run.started)
			ReThrowError(error);
		if (stop_get_reason(error) == STOP_TIMEOUT)
			error->message = "the run took longer than its timeout";
		else if (stop_get_reason(error) == STOP_CANCEL)
			error->message = "the run was cancelled";
		run_failure_record(&run, error);
		transaction_restore_surroundings(&run.before);
		MemoryContextSwitchTo(context);
	}

	/* leave nothing to the next run */
	crash_record_clear();
	current_run = NULL;
	debug_query_string = NULL;
	session_reset(committed || run.committed || run.has_set);
	callback_prune();
	if (error != NULL)
		return run_failure_status(error);
	return !run.started ? RUN_NONE : run.missed ? RUN_MISSED : RUN_SUCCEEDED;
}
