/*-------------------------------------------------------------------------
 *
 * transaction.c
 *		The transactions of a run: those of our own code, and what is put back.
 *
 * A run is one transaction as a rule, and more where the callback commits or fails.
 * User code and ours take turns in it.  Where ours runs, the transaction may write,
 * has no lock_timeout and cannot be cancelled, whatever the role or the callback has
 * set.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "worker/worker.h"

/* Counts the transactions that this process has ended. */
static uint64 transactions = 0;

static void
transaction_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		transactions++;
}

/* Get ready, once a worker. */
void
transaction_init(void)
{
	RegisterXactCallback(transaction_xact_callback, NULL);
}

/* Return how many transactions this process has ended. */
uint64
transaction_count(void)
{
	return transactions;
}

/* Keep in mind what a run changes of the process. */
void
transaction_save_surroundings(Surroundings *saved)
{
	saved->synchronous_commit = synchronous_commit;
	saved->lock_timeout = LockTimeout;
}

/*
 * Have the next commit be as durable as that.  The server keeps beside the setting for
 * what a commit waits of standbys.
 */
void
transaction_set_commit_mode(int mode)
{
	if (mode == synchronous_commit)
		return;
	synchronous_commit = mode;
	assign_synchronous_commit(mode, NULL);
}

/* Put that back. */
void
transaction_restore_surroundings(const Surroundings *saved)
{
	transaction_set_commit_mode(saved->synchronous_commit);
	LockTimeout = saved->lock_timeout;
}

/* Begin the part of a transaction in which only our own code runs. */
void
transaction_enter_bookkeeping(const Run *run)
{
	stop_disable(run->start.timeout);
	HOLD_CANCEL_INTERRUPTS();
	XactReadOnly = false;
	LockTimeout = 0;			/* the callback had the role's */
}

/* End it, at the commit: who wanted to cancel the run came too late. */
void
transaction_leave_bookkeeping(void)
{
	QueryCancelPending = false;
	RESUME_CANCEL_INTERRUPTS();
}

/*
 * Start a transaction whose own reads and writes no default of the role binds.
 * The snapshot is pushed.
 */
void
transaction_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactReadOnly = false;
	XactDeferrable = false;
	LockTimeout = 0;
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Open the tables for the outcome.  The extension may have been dropped while the
 * callback was running, and the task with it: NULL.  Where there still is a task,
 * but no way to write down its outcome, there must be none: 55000.
 */
Store *
transaction_open_store(Run *run)
{
	Store	   *store = store_try_open(RowExclusiveLock);

	if (store == NULL)
	{
		run->report->fate = TS_FATE_LOOK;
		if (store_state() != STORE_ABSENT)
			store_report(ERROR, store_state());
	}
	return store;
}

/* Roll back after an error, and return it, copied into that memory context. */
ErrorData *
transaction_roll_back(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	disable_all_timeouts(false);
	stop_disable(0);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction(); /* one that the command began included */
	PortalErrorCleanup();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}
