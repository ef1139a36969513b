/*-------------------------------------------------------------------------
 *
 * cancel.c
 *		Which runs a transaction cancels, told to their workers at its commit.
 *
 * Like every other call, cancel_task does nothing before its transaction
 * commits, and nothing at all if that is rolled back, or the subtransaction that
 * called it.  What it means is the run that is in progress at the call: it is
 * remembered by its worker's slot, the use of that slot, and the serial number
 * that the worker has given it.  If the run is over at the commit, so is the
 * matter; the next one is never meant.
 *
 * No transaction id is taken, so the commit waits for no standby, and a run
 * that does can be cancelled.
 *
 * How a worker acts on a request, stop.c says.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "commit/commit.h"

/* A run that is to be cancelled. */
typedef struct Cancel
{
	SlotRun		run;
	SubTransactionId subid;		/* that has asked for it, or its parent if it
								 * has ended */
} Cancel;

/* Those of this transaction, in its memory. */
static List *cancels = NIL;

/*
 * Tell the workers.  Runs when the transaction is over already, so nothing here
 * can fail.
 */
static void
cancel_tell(void)
{
	ListCell   *lc;

	foreach(lc, cancels)
	{
		Cancel	   *cancel = lfirst(lc);

		slot_request_stop(&cancel->run);
	}
}

static void
cancel_xact_callback(XactEvent event, void *arg)
{
	if (cancels == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			cancel_tell();
			cancels = NIL;
			break;

		case XACT_EVENT_ABORT:
			cancels = NIL;
			break;

		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has cancelled runs of tasks"),
					 errhint("Call taskshed.cancel_task() or taskshed.cancel_tasks() in a transaction of its own.")));
			break;

		default:
			break;
	}
}

static void
cancel_subxact_callback(SubXactEvent event, SubTransactionId subid,
						SubTransactionId parent_subid, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, cancels)
	{
		Cancel	   *cancel = lfirst(lc);

		if (cancel->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			cancel->subid = parent_subid;
		else
			cancels = foreach_delete_current(cancels, lc);
	}
}

/*
 * Remember a run to be cancelled, once: one that is in the list was asked for
 * by this subtransaction, or by one around it.
 */
static void
cancel_remember(const Cancel *cancel)
{
	static bool registered = false;
	MemoryContext old;
	Cancel	   *copy;
	ListCell   *lc;

	foreach(lc, cancels)
	{
		Cancel	   *other = lfirst(lc);

		if (other->run.slot == cancel->run.slot && other->run.generation == cancel->run.generation &&
			other->run.serial == cancel->run.serial)
			return;
	}
	/* few sessions ever cancel anything */
	if (!registered)
	{
		RegisterXactCallback(cancel_xact_callback, NULL);
		RegisterSubXactCallback(cancel_subxact_callback, NULL);
		registered = true;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	copy = palloc(sizeof(Cancel));
	*copy = *cancel;
	cancels = lappend(cancels, copy);
	MemoryContextSwitchTo(old);
}

/*
 * Have the run of a task that is in progress now stop when this transaction
 * commits.  Return whether there is one, and its end is not just being written.
 */
bool
cancel_run(int64 id)
{
	Cancel		cancel;

	if (!slot_find_run(id, &cancel.run) || !cancel.run.can_stop)
		return false;
	cancel.subid = GetCurrentSubTransactionId();
	cancel_remember(&cancel);
	return true;
}
