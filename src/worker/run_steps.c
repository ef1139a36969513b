/*-------------------------------------------------------------------------
 *
 * run_steps.c
 *		The steps of a run: finding what is to be called, the call, the outcome.
 *
 * run.c takes them for a run that has a transaction of its own, batch.c for those
 * that share one.
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
 * Set what the task has set for its runs, in a transaction of its own: so what the
 * callback commits does not end it.
 */
void
run_set(Run *run)
{
	transaction_begin();
	MemoryContextSwitchTo(run->context);
	run->has_set = true;
	LockTimeout = run->before.lock_timeout;
	task_settings_apply(DatumGetJsonbP(ROW_DATUM(&run->task, task_settings)));
	run->lock_timeout = LockTimeout;
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Find out what is to be called, in a run that can be stopped.  If it could end
 * transactions of its own, that it has begun is first recorded in one of ours.
 * Return NULL if the task is not to run after all.
 */
Callback *
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
void
run_call(Run *run, Callback *callback)
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
	LockTimeout = run->lock_timeout;
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
void
run_show(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char	   *text = psprintf("%s -- task %s", run->callback, run->start.task_id);

	MemoryContextSwitchTo(old);
	debug_query_string = text;

	pgstat_report_activity(STATE_RUNNING, text);
}

/*
 * Write the outcome of a run that has come to its end.  From here on only our code
 * runs in the transaction.  If keep, the tables stay open, in run->store.
 */
void
run_write_outcome(Run *run, bool keep)
{
	transaction_enter_bookkeeping(run);
	ts_my_worker->ending = true;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	if (run->store == NULL)
		run->store = transaction_open_store(run);
	if (run->store != NULL)
	{
		if (run->missed)
			outcome_missed(run->store, &run->start, run->report);
		else
			outcome_succeeded(run->store, &run->start, run->result, run->report);
	}
	if (run->store != NULL && !keep)
	{
		store_close(run->store, NoLock);
		run->store = NULL;
	}
	PopActiveSnapshot();
}
