/*-------------------------------------------------------------------------
 *
 * shortage.c
 *		Whether a process of ours has ended for want of something.
 *
 * A scheduler or a worker that does not get as far as its work is started again
 * later each time.  That is for what does not mend itself, as a broken catalog.
 * A full disk, no memory, no room for locks or connections: these pass, and
 * then nobody is to wait any longer for what is due.  Whoever decides when to
 * start the next process must know which of the two it was, and the process
 * that ends can say so, if it has seen its own last error.  FATAL ones cannot be
 * caught; but all pass by the hook that the server has for its log.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/elog.h"

#include "taskshed.h"

static emit_log_hook_type prev_emit_log_hook = NULL;

/* What is known of the last error that was not caught. */
static bool met = false;

static void
shortage_emit_log(ErrorData *error)
{
	if (error->elevel >= ERROR)
		met = shared_is_shortage(error);
	if (prev_emit_log_hook)
		prev_emit_log_hook(error);
}

/* Once a process of ours, before what may fail. */
void
shortage_watch(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = shortage_emit_log;
}

/* For its exit callback: is that why it ends? */
bool
shortage_ends_process(void)
{
	return met;
}
