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
#include "commands/trigger.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

/*
 * How often a run that lost a deadlock or the like is tried again at once,
 * before that counts as its failure.
 */
#define CONFLICT_RETRIES	5

/*
 * Find out what is to be called, in a run that can be stopped.  If it could end
 * transactions of its own, that it has begun is first recorded in one of ours.
 * Return NULL if the task is not to run after all.
 */
static Callback *
run_prepare(Run *run)
{
	Callback   *callback;
	Store	   *store;
	bool		go_on = false;

	MemoryContextSwitchTo(run->context);
	stop_enable(run->start.timeout);
	callback = callback_prepare(run->callback, run->kwargs);
	if (callback->kind == CALLBACK_FUNCTION)
	{
		if (run->start.tids.known)
			run->pin = RegisterSnapshotOnOwner(GetActiveSnapshot(), TopTransactionResourceOwner);
		return callback;
	}

	/* it can end transactions */
	run->start.tids.known = false;
	if (run->begun == run->start.revision)
		return callback;

	PopActiveSnapshot();
	CommitTransactionCommand();
	transaction_begin();
	transaction_enter_bookkeeping(run);
	store = transaction_open_store(run);
	if (store != NULL)
	{
		go_on = cut_off_begin(store, &run->start, run->report);
		store_close(store, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();

	if (!go_on)
		return NULL;
	run->begun = run->start.revision;
	transaction_begin();
	stop_enable(run->start.timeout);

	/* it may have been changed between the transactions */
	return callback_prepare(run->callback, run->kwargs);
}

/*
 * Call the callback and finish all user code that is left behind it.
 *
 * A procedure, or a command of taskshed.execute, may have ended transactions
 * of its own.  What it has done since is then committed here, and the outcome
 * is written in one more transaction: in between, a crash has the task run
 * again.
 *
 * What the callback has set ends here, but not what it has made its transaction
 * be: that is to be committed as what it is.
 */
static void
run_callback(Run *run, Callback *callback)
{
	int			guc_level;
	int			commit_mode;
	int			isolation;
	ParamListInfo params;

	/* a client's message may say what its transaction is to be like */
	if (callback->kind == CALLBACK_EXECUTE)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		StartTransactionCommand();
	}
	guc_level = NewGUCNestLevel();

	/* the call; all this must outlive the transaction */
	MemoryContextSwitchTo(run->context);
	current_run = run;
	XactReadOnly = DefaultXactReadOnly;
	LockTimeout = run->before.lock_timeout;
	run->transactions = transaction_count();
	run->called = true;
	run->binding = callback;
	params = callback_bind(callback, run->kwargs, run->start.calendar.zone, false);
	run->binding = NULL;
	if (callback->kind == CALLBACK_PROCEDURE)
		PopActiveSnapshot();
	run->result = call_at_top_level(callback, params);
	if (callback->kind == CALLBACK_FUNCTION)
		PopActiveSnapshot();

	/* what it has left to be done */
	commit_mode = synchronous_commit;
	if (transaction_count() == run->transactions)
	{
		/* deferred triggers can open held cursors, and those fire triggers */
		do
			AfterTriggerFireDeferred();
		while (PreCommit_Portals(false));
		commit_mode = synchronous_commit;
		isolation = XactIsoLevel;
		AtEOXact_GUC(false, guc_level);
		XactIsoLevel = isolation;
	}
	else
	{
		run->committed = true;
		CommitTransactionCommand();
		transaction_begin();
		PopActiveSnapshot();
	}
	transaction_set_commit_mode(commit_mode);
	current_run = NULL;
}

/* Say in pg_stat_activity what is running, to those who may see queries. */
static void
run_show(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char	   *text = psprintf("%s -- task %s", run->callback, run->start.task_id);

	MemoryContextSwitchTo(old);
	debug_query_string = text;

	pgstat_report_activity(STATE_RUNNING, text);
}

/* Try a run once, from beginning to end.  Any error is left to the caller to record. */
static void
run_attempt(Run *run)
{
	Callback   *callback;
	Store	   *store;

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
	if (IsolationUsesXactSnapshot())
	{
		/* what the callback sees must not be older than what was read */
		run->start.tids.known = false;
		PopActiveSnapshot();
		CommitTransactionCommand();
		transaction_begin();
	}

	/* call it */
	if (run->missed)
	{
		run->start.tids.known = false;
		PopActiveSnapshot();
	}
	else if ((callback = run_prepare(run)) != NULL)
		run_callback(run, callback);
	else
	{
		run->started = false;
		return;
	}

	/* write the outcome */
	transaction_enter_bookkeeping(run);
	ts_my_worker->ending = true;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	store = transaction_open_store(run);
	if (store != NULL)
	{
		if (run->missed)
			outcome_missed(store, &run->start, run->report);
		else
			outcome_succeeded(store, &run->start, run->result, run->report);
		store_close(store, NoLock);
	}
	if (run->pin != NULL)
		UnregisterSnapshotFromOwner(run->pin, TopTransactionResourceOwner);
	PopActiveSnapshot();
	CommitTransactionCommand();
	transaction_leave_bookkeeping();
}

/*
 * Run a task, if it is due, fill in what became of it, and put the session
 * back as new.  The task is one of the role that this process is connected as.
 * The current memory context is the run's; the caller resets it.  Return how the
 * run has ended; RUN_NONE if it was not to run.
 */
RunStatus
run_task(const TsHanded *task, TsReport *report)
{
	MemoryContext context = CurrentMemoryContext;
	Run			run = {.id = task->id,.alarm_tid = task->alarm_tid,.report = report,.context = context,
	.begun_for = DT_NOBEGIN};
	ErrorData  *volatile error = NULL;
	volatile int tries = 0;
	volatile bool again;
	volatile bool committed = false;
	volatile uint64 generation = 0;

	transaction_save_surroundings(&run.before);
	QueryCancelPending = false;
	do
	{
		again = false;
		run.called = false;
		run.binding = NULL;
		generation = callback_generation();
		error = NULL;
		PG_TRY();
		{
			ts_my_worker->ending = false;
			if (tries > 0)
				run_failure_step_aside(tries);
			run_attempt(&run);
		}
		PG_CATCH();
		{
			/* not undone by the rollback: what a procedure has committed */
			committed = (run.called && transaction_count() != run.transactions);
			error = transaction_roll_back(context);
		}
		PG_END_TRY();
		transaction_restore_surroundings(&run.before);

		if (error != NULL && !committed && tries < CONFLICT_RETRIES &&
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
	session_reset(committed || run.committed);
	callback_prune();
	if (error != NULL)
		return run_failure_status(error);
	return !run.started ? RUN_NONE : run.missed ? RUN_MISSED : RUN_SUCCEEDED;
}
