/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		What the server calls us for.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_HOOKS_HOOKS_H
#define TASKSHED_HOOKS_HOOKS_H

#include "postgres.h"

#include "tcop/utility.h"

#include "launcher/launcher.h"

/* A command that is to be executed, as a ProcessUtility_hook gets it. */
typedef struct UtilityCommand
{
	ProcessUtility_hook_type next;	/* executes it: the next hook, or the
									 * server */
	PlannedStmt *pstmt;
	const char *query_string;
	bool		read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *query_env;
	DestReceiver *dest;
	QueryCompletion *qc;
} UtilityCommand;

/*
 * Pass a command on to the next hook, or the server.  If it may have to be
 * executed again, leave its tree as it is.
 */
static inline void
utility_command_pass_on(const UtilityCommand *command, bool again)
{
	command->next(command->pstmt, command->query_string, command->read_only_tree || again,
				  command->context, command->params, command->query_env,
				  command->dest, command->qc);
}

/* ------------------------------------------------------------------------
 * commands.c
 */
extern void commands_init(void);

/* ------------------------------------------------------------------------
 * drop_extension.c
 */
extern bool drop_extension_is_drop(const Node *statement);
extern bool drop_extension_is_alter(const Node *statement);
extern void drop_extension_execute(const UtilityCommand *command);

/* ------------------------------------------------------------------------
 * end_prepared.c
 */
extern bool end_prepared_is(const Node *statement);
extern void end_prepared_execute(const UtilityCommand *command);

/* ------------------------------------------------------------------------
 * object_access.c
 */
extern void object_access_init(void);

/* ------------------------------------------------------------------------
 * replicated.c
 */
extern void replicated_relation_changed(Oid relid);

#endif							/* TASKSHED_HOOKS_HOOKS_H */
